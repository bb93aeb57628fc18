"""Checkpoints as a reader sees them: found, verified, loaded; nothing on the disk changes.

A checkpoint is a folder ``step-<10 digits>``. A crash while it was replaced can leave the one
that it should replace beside it, as ``.old``.
"""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from workloads.worker.failures import CheckpointError, read_json
from workloads.worker.manifest import (
    MANIFEST_FILE,
    STATE_FILE,
    DamagedError,
    Manifest,
    read_manifest,
    verify_state,
)
from workloads.worker.paths import JobPaths

Which = Literal["best", "last"] | int

_COMPLETE = re.compile(r"step-(\d{10})(\.old)?")
_LOOKS = 5
"""How often a checkpoint is chosen anew that the training removed under the reader's hands."""


def open_checkpoint(folder: Path, which: Which = "last") -> dict[str, Any]:
    """Return the verified state of a checkpoint, of a running job too.

    Args:
        folder: A job's folder, or that of one checkpoint (`which` is then without meaning).
        which: The newest, the one with the best validation result, or a step.

    Returns:
        Plain data and tensors on the CPU, as it was saved.

    Raises:
        CheckpointError: There is none (yet), it is damaged, of another program or of a newer
            gcpctl.
        OSError: The storage failed.
    """
    if any((folder / name).exists() for name in (MANIFEST_FILE, STATE_FILE)):
        return _open(folder, _verified_under_any_name, "")
    checkpoints = _checkpoints_of(folder)
    for _ in range(_LOOKS):
        chosen = _choose(checkpoints, which)
        others = sorted({step_of(other) for other in complete(checkpoints)} - {step_of(chosen)})
        advice = f"; there are others, of step {', '.join(map(str, others))}" if others else ""
        try:
            return _open(chosen, verified, advice)
        except CheckpointError:
            if chosen.exists():
                raise
    raise CheckpointError(
        f"the training removes checkpoints in {checkpoints} faster than they can be read; "
        "set checkpoint.keep higher, or wait for the job's end"
    )


def complete(checkpoints: Path) -> list[Path]:
    """Return complete checkpoints, the newest first; a replaced one after its successor."""
    if not checkpoints.is_dir():
        return []
    found = [f for f in checkpoints.iterdir() if _COMPLETE.fullmatch(f.name)]
    return sorted(found, key=lambda f: (step_of(f), f.suffix != ".old"), reverse=True)


def step_of(folder: Path) -> int:
    """Return the step in a complete checkpoint's name."""
    match = _COMPLETE.fullmatch(folder.name)
    assert match is not None
    return int(match[1])


def manifests(checkpoints: Path) -> list[Manifest]:
    """Return all manifests that can be read, the newest first; states are not looked at."""
    found = []
    for folder in complete(checkpoints):
        try:
            found.append(read_manifest(folder))
        except (DamagedError, CheckpointError):
            continue
    return found


def verified(folder: Path) -> Manifest:
    """Read a checkpoint through and compare it with its manifest.

    Raises:
        DamagedError: It is not what was written.
        CheckpointError: It is of a newer format than this code knows.
    """
    manifest = read_manifest(folder)
    if manifest.step != step_of(folder):
        raise DamagedError(f"{MANIFEST_FILE} is of step {manifest.step}")
    verify_state(folder, manifest)
    return manifest


def load_state(folder: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Read a state whose digest is right.

    Args:
        folder: The checkpoint.
        mapped: Leave the tensors in the file, which must stay while they are used.

    Raises:
        DamagedError: It was saved this way: by foreign hands or a broken program.
        OSError: The storage failed. This and a lack of memory say nothing about the checkpoint.
    """
    try:
        # Opened here: torch's own reader hides the operating system's reason.
        with (folder / STATE_FILE).open("rb") as handle:
            source = folder / STATE_FILE if mapped else handle
            state = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise DamagedError(f"{STATE_FILE} is missing") from None
    except (pickle.UnpicklingError, EOFError) as error:
        raise DamagedError(f"{STATE_FILE} does not load as plain data: {error}") from error
    except RuntimeError as error:
        if "alloc" in str(error):  # how torch says that memory ran out
            raise
        raise DamagedError(f"{STATE_FILE} is no archive of torch: {error}") from error
    if not isinstance(state, dict):
        raise DamagedError(f"{STATE_FILE} holds no state")
    return state


def _verified_under_any_name(folder: Path) -> Manifest:
    """Verify a checkpoint that a person may have copied under a name of their own."""
    manifest = read_manifest(folder)
    verify_state(folder, manifest)
    return manifest


def _open(folder: Path, verify: Callable[[Path], Manifest], advice: str) -> dict[str, Any]:
    try:
        verify(folder)
        return load_state(folder)
    except DamagedError as damage:
        raise CheckpointError(f"checkpoint {folder} cannot be used: {damage}{advice}") from None


def _checkpoints_of(folder: Path) -> Path:
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}")
    checkpoints = JobPaths(folder).checkpoints
    if not checkpoints.is_dir() and complete(folder):
        checkpoints = folder
    if not complete(checkpoints):
        damaged = sorted(aside.name for aside in checkpoints.glob("step-*.bad-*"))
        raise CheckpointError(
            f"no checkpoint in {checkpoints} can be used; damaged: {', '.join(damaged)}"
            if damaged
            else f"{folder} has no checkpoint yet; a job saves its first one after an epoch, or "
            "after checkpoint.every_steps"
        )
    return checkpoints


def _choose(checkpoints: Path, which: Which) -> Path:
    folders = complete(checkpoints)
    if which == "last" and folders:
        return folders[0]
    step = _best_step(checkpoints) if which == "best" else which
    if step is None:
        raise CheckpointError(
            f"no checkpoint in {checkpoints} has a validation result yet; ask for the last one"
        )
    for folder in folders:
        if step_of(folder) == step:
            return folder
    steps = ", ".join(str(step_of(folder)) for folder in reversed(folders))
    raise CheckpointError(f"{checkpoints} has no checkpoint of step {step}; there are: {steps}")


def _best_step(checkpoints: Path) -> int | None:
    pointer = read_json(checkpoints / "best.json")
    if pointer is not None:
        return int(pointer["step"])
    return max((m.step for m in manifests(checkpoints) if m.is_best), default=None)
