"""A trial of several workers: a Ray Train run of its own, watched through its folder."""

import threading
import time

from orchestrator.drivers.group import run_group
from orchestrator.drivers.tuning.trial import Report, TrialSettings, TrialTask, only_epochs
from orchestrator.drivers.worker import WorkerSettings
from orchestrator.jobs.space import trial_config
from orchestrator.jobs.spec import Resources
from workloads.worker.failures import read_json
from workloads.worker.spool import SpoolRow, read_committed

_POLL_S = 0.2
_LEAVE_WITHIN_S = 300.0


class GroupRun:
    """One life of a trial as a group of workers; it begins at once.

    Epochs are heard of once their checkpoint is safe. The group trains on while a scheduler
    decides; one that is not wanted any more is asked to save and leave, which frees its workers.

    Args:
        settings: Of the sweep.
        task: Which trial.

    Raises:
        ConfigError: Its values do not go together.
    """

    def __init__(self, settings: TrialSettings, task: TrialTask) -> None:
        self._settings = settings
        self._task = task
        self._paths = task.paths(settings)
        self._offset = 0
        self._rows: list[SpoolRow] = []
        self._failure: tuple[str, str] | None = None
        self._config = trial_config(settings.base, task.values)
        for left_over in (self._paths.stop, self._paths.result):
            left_over.unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._live, name=task.name, daemon=True)
        self._thread.start()

    def next_report(self) -> Report:
        """Wait for the next epoch with a result, or the end."""
        while True:
            alive = self._thread.is_alive()  # before the look: what comes after it is seen
            self._read_rows()
            if not alive:
                return self._last_report()
            heard = any(self._settings.metric in row.metrics for row in self._rows)
            last = self._rows and self._rows[-1].step >= self._config.epochs
            if heard and not last:
                return Report("running", self._take_rows())
            if self._settings.stop_file.exists():
                self._paths.stop.touch()
            time.sleep(_POLL_S)

    def proceed(self) -> None:
        """Nothing waits: the group trains on by itself."""

    def abandon(self) -> None:
        """Ask the workers to leave, and wait for that.

        Raises:
            TimeoutError: They do not.
        """
        self._paths.root.mkdir(parents=True, exist_ok=True)
        self._paths.stop.touch()
        self._thread.join(_LEAVE_WITHIN_S)
        if self._thread.is_alive():
            raise TimeoutError(f"the workers of {self._task.name} do not end")

    def _live(self) -> None:
        settings, task = self._settings, self._task
        try:
            worker = WorkerSettings(
                config=self._config.model_dump(mode="json"),
                root=str(self._paths.root),
                attempt=settings.attempt,
                threads=settings.cpus,
                use_gpu=settings.gpus > 0,
            )
            resources = Resources(
                num_workers=settings.workers,
                cpus_per_worker=settings.cpus,
                gpus_per_worker=settings.gpus,
            )
            name = f"{settings.job_id}-{task.name}"
            outcome = run_group(worker, resources, name=name, storage_path=self._paths.root.parent)
            if outcome is not None:
                self._failure = (outcome.failure_class, outcome.reason)
        except Exception as exc:  # Ray itself
            self._failure = ("infrastructure", f"{type(exc).__name__}: {exc}")

    def _read_rows(self) -> None:
        rows, self._offset = read_committed(self._paths.spool, self._offset)
        self._rows += only_epochs(rows)

    def _take_rows(self) -> list[SpoolRow]:
        rows, self._rows = self._rows, []
        return rows

    def _last_report(self) -> Report:
        rows = self._take_rows()
        if self._failure is not None:
            failure_class, reason = self._failure
            return Report("failed", rows, reason, failure_class)
        result = read_json(self._paths.result)
        if result is None:
            return Report("failed", rows, "the workers returned without a result", "infrastructure")
        if result["stopped"]:
            return Report("stopped", rows, f"stopped at step {result['global_step']}")
        return Report("finished", rows, f"val top-1 {result['val_top1']:.2f} %")
