"""A trial's way to the outside: a job's folder, and a word after each epoch."""

import time
from collections.abc import Mapping
from typing import Any

import torch

from orchestrator.drivers.tuning.in_process import Channel
from orchestrator.drivers.tuning.trial import (
    EPOCH_METRIC,
    Report,
    TrialSettings,
    TrialTask,
    only_epochs,
)
from workloads.config.train import TrainConfig
from workloads.worker.folder_context import STOP_POLL_S, FolderContext
from workloads.worker.spool import SpoolRow, make_row, read_committed


class TrialContext(FolderContext):
    """A worker alone in a folder, that reports epochs and waits for what is made of them.

    The last epoch is not reported by itself: it comes with the result, so that no scheduler ends a
    trial that has nothing left to do but to save.

    Args:
        settings: Of the sweep.
        task: Which trial.
        config: What it trains.
        channel: Where its reports go.

    Raises:
        FencedError: A newer attempt of the sweep has begun the trial.
    """

    def __init__(
        self, settings: TrialSettings, task: TrialTask, config: TrainConfig, channel: Channel
    ) -> None:
        super().__init__(
            task.paths(settings).root,
            attempt=settings.attempt,
            device=torch.device("cuda" if settings.gpus else "cpu"),
            keep_checkpoints=config.checkpoint.keep,
            keep_best=config.checkpoint.keep_best,
            asynchronous=config.checkpoint.asynchronous and not settings.saves_each_epoch,
        )
        self._settings = settings
        self._channel = channel
        self._last_epoch = config.epochs
        self._rows: list[SpoolRow] = []
        self._sweep_stops = False
        self._sweep_polled_s = float("-inf")

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Load, and take up the epochs until there: a crash may have kept them from being told."""
        state = super().load_checkpoint()
        rows, _ = read_committed(self.paths.spool, 0)
        self._rows = only_epochs(rows)
        return state

    def log_metrics(self, step: int, metrics: Mapping[str, float], *, at: int) -> None:
        """Keep a row; one of an epoch is reported, here or once its checkpoint is safe."""
        super().log_metrics(step, metrics, at=at)
        if EPOCH_METRIC not in metrics:
            return
        self._rows.append(make_row(step, at, metrics))
        if not self._settings.saves_each_epoch:
            self._report()

    def save_checkpoint(
        self, state: dict[str, Any], *, step: int, is_best: bool, score: float | None = None
    ) -> None:
        """Save, then report what waits for it."""
        super().save_checkpoint(state, step=step, is_best=is_best, score=score)
        if self._settings.saves_each_epoch:
            self._report()

    def should_stop(self) -> bool:
        """Whether the trial or the whole sweep was asked to save and leave."""
        now_s = time.monotonic()
        if not self._sweep_stops and now_s - self._sweep_polled_s >= STOP_POLL_S:
            self._sweep_polled_s = now_s
            self._sweep_stops = self._settings.stop_file.exists()
        return super().should_stop() or self._sweep_stops

    def take_rows(self) -> list[SpoolRow]:
        """Return the rows that no report has taken yet."""
        rows, self._rows = self._rows, []
        return rows

    def _report(self) -> None:
        """Hand over what there is, unless it is to come with the result; wait for a permit.

        Epochs without a validation wait for the next that has one.
        """
        if not self._rows or self._rows[-1].step >= self._last_epoch:
            return
        if any(self._settings.metric in row.metrics for row in self._rows):
            self._channel.tell(Report("running", self.take_rows()))
            self._channel.wait_for_permit()
