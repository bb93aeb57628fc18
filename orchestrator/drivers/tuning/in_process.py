"""A trial of one worker: the training loop in a thread of the process that Ray Tune gave it.

The process outlives the trial, so torch is imported and warmed up once for many trials. The
training waits at the end of each epoch until it is told to go on, which is what lets a scheduler
end it there, and what makes the checkpoint of a pause the one of the epoch just reported.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from orchestrator.drivers.tuning.trial import Report, TrialSettings, TrialTask
from orchestrator.drivers.worker import output_to
from workloads.worker.failures import classify

_LEAVE_WITHIN_S = 120.0


class Abandoned(BaseException):
    """The trial is not wanted any more; unwinds the training without a checkpoint."""


class Channel:
    """Between the training's thread and whoever asks for its next epoch."""

    def __init__(self) -> None:
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._permits: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def tell(self, report: Report) -> None:
        """Say something, from the training."""
        self._reports.put(report)

    def wait_for_permit(self) -> None:
        """Wait until the training may go on.

        Raises:
            Abandoned: It may not.
        """
        if not self._permits.get():
            raise Abandoned

    def permit(self, go_on: bool) -> None:
        """Let the training go on, or end it."""
        self._permits.put(go_on)

    def next_report(self) -> Report:
        """Wait for the training's next word."""
        return self._reports.get()


class InProcessRun:
    """One life of a trial in this process; it begins at once.

    Args:
        settings: Of the sweep.
        task: Which trial.
    """

    def __init__(self, settings: TrialSettings, task: TrialTask) -> None:
        self._channel = Channel()
        self._thread = threading.Thread(
            target=_live, args=(settings, task, self._channel), name=task.name, daemon=True
        )
        self._thread.start()

    def next_report(self) -> Report:
        """Wait for the next epoch or the end."""
        return self._channel.next_report()

    def proceed(self) -> None:
        """Let the training go on after a report."""
        self._channel.permit(True)

    def abandon(self) -> None:
        """End the training at its next report, and wait for that.

        Raises:
            TimeoutError: It does not end; the process is of no further use.
        """
        self._channel.permit(False)
        self._thread.join(_LEAVE_WITHIN_S)
        if self._thread.is_alive():
            raise TimeoutError(f"the training of {self._thread.name} does not end")


def _live(settings: TrialSettings, task: TrialTask, channel: Channel) -> None:
    """Train, and say how it ended, whatever happens."""
    paths = task.paths(settings)
    log = paths.root / "logs" / f"attempt-{settings.attempt}" / "rank-0.log"
    try:
        with output_to(log):
            report = _guarded(lambda: _train(settings, task, channel))
    except OSError as exc:  # no room for the log, before anything began
        report = Report("failed", reason=str(exc), failure_class=classify(exc))
    if report is not None:
        channel.tell(report)


def _guarded(train: Callable[[], Report]) -> Report | None:
    """Return how a training ended; None for one that was abandoned."""
    import traceback

    try:
        return train()
    except Abandoned:
        return None
    except BaseException as exc:
        traceback.print_exc()
        reason = f"{type(exc).__name__}: {exc}"
        return Report("failed", reason=reason, failure_class=classify(exc))


def _train(settings: TrialSettings, task: TrialTask, channel: Channel) -> Report:
    import torch

    from orchestrator.drivers.tuning.context import TrialContext
    from orchestrator.jobs.space import trial_config
    from workloads.training.loop import train
    from workloads.worker.seeding import set_threads

    config = trial_config(settings.base, task.values)
    if settings.saves_each_epoch:
        each = config.checkpoint.model_copy(update={"every_epochs": 1})
        config = config.model_copy(update={"checkpoint": each})
    # In this thread: the number of threads that torch computes with belongs to one.
    set_threads(settings.cpus)
    context = TrialContext(settings, task, config, channel)
    began = time.monotonic()
    try:
        with contextlib.closing(context):
            result = train(config, context)
    finally:
        if context.device.type == "cuda":
            torch.cuda.empty_cache()
    rows: list[Any] = context.take_rows()
    if result.stopped:
        return Report("stopped", rows, f"stopped at step {result.global_step}, checkpoint saved")
    seconds = time.monotonic() - began
    top1 = "" if result.val_top1 is None else f"val top-1 {result.val_top1:.2f} %, "
    return Report("finished", rows, f"{top1}{seconds:.1f} s")
