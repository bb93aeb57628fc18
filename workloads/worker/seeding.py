"""Random numbers and threads: what makes two equal runs equal in every bit."""

import os
import random
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int, rank: int | None = None) -> None:
    """Seed Python, NumPy and torch and switch torch to its deterministic kernels.

    Args:
        seed: The job's seed.
        rank: Gives each worker numbers of its own (dropout); None gives all the same (weights).
    """
    words = (seed,) if rank is None else (seed, rank + 1)
    mixed = int(np.random.SeedSequence(words).generate_state(1, np.uint32)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)
    if torch.cuda.is_available():
        # Read by cuBLAS at its first use; without it, products may sum in another order.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        # Only where it matters: CPU kernels are deterministic at a fixed number of threads, and
        # the switch imports the compiler.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False


def set_threads(num_threads: int) -> None:
    """Fix the threads torch computes with; the number changes the last bits of sums."""
    torch.set_num_threads(max(1, num_threads))


def rng_state(device: torch.device) -> dict[str, Any]:
    """Return the generators' states as tensors and plain values, fit for a checkpoint."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: dict[str, Any], device: torch.device) -> None:
    """Put the generators where `rng_state` found them."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
