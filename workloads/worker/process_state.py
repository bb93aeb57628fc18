"""A process that runs one job after the other, each as if it were its first."""

import contextlib
import ctypes
import gc
import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workloads.worker.seeding import rng_state, set_rng_state

_FLAGS: tuple[tuple[Any, str], ...] = (
    (torch.backends.cudnn, "benchmark"),
    (torch.backends.cudnn, "deterministic"),
    (torch.backends.cudnn.conv, "fp32_precision"),
    (torch.backends.cuda.matmul, "fp32_precision"),
    (torch.backends.mkldnn.matmul, "fp32_precision"),
    (torch.utils.deterministic, "fill_uninitialized_memory"),
)
_ENDS_WITHIN_S = 5.0


@dataclass(frozen=True)
class ProcessState:
    """What a job may change in its process, as it was before.

    Left alone is what costs time and changes no number: imported modules, and kernels that were
    compiled and tested once for the process.
    """

    environment: dict[str, str]
    folder: Path
    num_threads: int
    flags: tuple[Any, ...]
    deterministic: bool
    deterministic_warns: bool
    dtype: torch.dtype
    rng: dict[str, Any]

    @classmethod
    def capture(cls) -> "ProcessState":
        """Return the present state."""
        return cls(
            environment=dict(os.environ),
            folder=Path.cwd(),
            num_threads=torch.get_num_threads(),
            flags=tuple(getattr(holder, name) for holder, name in _FLAGS),
            deterministic=torch.are_deterministic_algorithms_enabled(),
            deterministic_warns=torch.is_deterministic_algorithms_warn_only_enabled(),
            dtype=torch.get_default_dtype(),
            rng=rng_state(torch.device("cpu")),
        )

    def restore(self) -> None:
        """Put everything back, end what still runs, and give memory back to the system."""
        _end_children()
        _restore_environment(self.environment)
        os.chdir(self.folder)
        torch.set_grad_enabled(True)
        torch.set_default_dtype(self.dtype)
        torch.set_num_threads(self.num_threads)
        for (holder, name), value in zip(_FLAGS, self.flags, strict=True):
            if getattr(holder, name) != value:
                setattr(holder, name, value)
        now = torch.are_deterministic_algorithms_enabled()
        if (now, torch.is_deterministic_algorithms_warn_only_enabled()) != (
            self.deterministic,
            self.deterministic_warns,
        ):
            torch.use_deterministic_algorithms(
                self.deterministic, warn_only=self.deterministic_warns
            )
        set_rng_state(self.rng, torch.device("cpu"))
        _forget_compiled()
        _forget_warnings()
        _free_memory()


def _restore_environment(before: dict[str, str]) -> None:
    """Change only what differs: threads of C libraries read the environment at any time."""
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _end_children() -> None:
    """End processes that a job left behind; those of its loaders have ended with it."""
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    for child in children:
        child.join(_ENDS_WITHIN_S)


def _forget_compiled() -> None:
    """Drop what was compiled for the networks of a job: it is limited in number, and is memory."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def _forget_warnings() -> None:
    """Have warnings that are given once be given once per job."""
    for module in list(sys.modules.values()):
        registry = getattr(module, "__dict__", {}).get("__warningregistry__")
        if registry:
            registry.clear()


def _free_memory() -> None:
    torch.clear_autocast_cache()
    gc.collect()
    # What lives between two jobs are modules and caches, a million objects that no later
    # collection needs to look through: it would take longer than a step of a small training.
    gc.freeze()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    # What is freed in small pieces stays with the process otherwise: glibc keeps it.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
