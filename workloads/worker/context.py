"""What the training loop sees of the world around it, and its form for tests and notebooks."""

import copy
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from workloads.worker.records import Progress, TrainResult


class WorkerContext(Protocol):
    """One worker's place among the others and its only way to the outside.

    The training loop asks nothing else of where it runs. Every rank calls every method equally
    often; where only rank 0 acts, the others' calls do nothing. No call waits for a network.

    Attributes:
        rank: This worker's number, from 0.
        world_size: How many workers train together.
        local_rank: This worker's number on its machine.
        attempt: Which try of the job this is, from 1.
        device: Where to compute.
        loaded_from: The folder that `load_checkpoint` found its state in; None on other ranks than
            0, and where there are no folders.
        shared_cache: A folder that all workers of all jobs see, for what can be made again; None
            where there are no folders.
    """

    rank: int
    world_size: int
    local_rank: int
    attempt: int
    device: torch.device
    loaded_from: Path | None
    shared_cache: Path | None

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the newest good state, the same on every rank; called once, before any metric."""

    def log_metrics(self, step: int, metrics: Mapping[str, float], *, at: int) -> None:
        """Record metrics under `step`; `at` is the optimizer step that produced them."""

    def report_progress(self, progress: Progress) -> None:
        """Show how far it is; the first report of phase ``train`` marks the first step."""

    def should_stop(self) -> bool:
        """Whether somebody asked to stop, as rank 0 sees it; cheap enough for every step."""

    def save_checkpoint(
        self, state: dict[str, Any], *, step: int, is_best: bool, score: float | None = None
    ) -> None:
        """Take a state and all metrics up to it, to make them safe before the next save or the end.

        The state may change once this returns. `score` is its validation result, the higher the
        better; the best ones are kept longer. Where the state is written beside the training, what
        goes wrong is raised by the next call of this method, `should_stop` or `finish`.
        """

    def finish(self, result: TrainResult) -> None:
        """Record what the training came to."""


def _never() -> bool:
    return False


@dataclass
class MemoryContext:
    """A single worker that keeps everything in lists.

    Attributes:
        stop_when: Asked once per optimizer step.
        checkpoints: ``(step, state, is_best)``; a state went through the checkpoint's format, so
            what is no plain data fails here too.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    attempt: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    stop_when: Callable[[], bool] = _never
    metrics: list[tuple[int, int, dict[str, float]]] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    checkpoints: list[tuple[int, dict[str, Any], bool]] = field(default_factory=list)
    result: TrainResult | None = None
    loaded_from: Path | None = None
    shared_cache: Path | None = None

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return a copy of the newest state."""
        return copy.deepcopy(self.checkpoints[-1][1]) if self.checkpoints else None

    def log_metrics(self, step: int, metrics: Mapping[str, float], *, at: int) -> None:
        """Keep ``(step, at, metrics)``."""
        self.metrics.append((step, at, dict(metrics)))

    def report_progress(self, progress: Progress) -> None:
        """Keep the progress."""
        self.progress.append(progress)

    def should_stop(self) -> bool:
        """Ask `stop_when`."""
        return self.stop_when()

    def save_checkpoint(
        self, state: dict[str, Any], *, step: int, is_best: bool, score: float | None = None
    ) -> None:
        """Keep a copy that shares nothing with the running training."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        self.checkpoints.append((step, torch.load(buffer, weights_only=True), is_best))

    def finish(self, result: TrainResult) -> None:
        """Keep the result."""
        self.result = result
