"""What Ray Tune starts, asks for epochs, pauses, and hands from one trial to the next."""

import contextlib
import dataclasses
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, Protocol

from ray import tune

from orchestrator.drivers.tuning.trial import (
    Report,
    TrialSettings,
    TrialTask,
    generation_folder,
)
from workloads import durable
from workloads.config.errors import ConfigError

DONE = "done"
SCORE = "score"
EPOCH = "epoch"
TASK = "task"
SETTINGS = "settings"
"""Keys of a trial's config and results, as Tune passes them."""

_ORIGIN = "origin.json"

# Read by Ray Tune in each trial's process: a trial stays in the folder that its process began in.
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")


class TrialInfrastructureError(RuntimeError):
    """A trial failed for what another try may get round; Ray Tune tries it again."""


class TrialRun(Protocol):
    """One life of a trial, begun when it was made."""

    def next_report(self) -> Report:
        """Wait for the next epoch or the end."""

    def proceed(self) -> None:
        """Let the training go on after a report."""

    def abandon(self) -> None:
        """End the training."""


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """A process for one trial after another.

    The weights of a trial lie in its own folder, where it resumes from by itself. Ray Tune's
    checkpoints are for what that cannot do: in population based training, a copy of the newest
    checkpoint for another trial to go on from.
    """

    _settings: TrialSettings
    _task: TrialTask
    _run: TrialRun | None
    _last: dict[str, Any]

    def setup(self, config: dict[str, Any]) -> None:
        """Get ready for a trial; it begins with the first `step`."""
        self._settings = TrialSettings(**config[SETTINGS])
        self._take_over(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Leave the trial before and get ready for another in the same process."""
        self._leave()
        self._settings = TrialSettings(**new_config[SETTINGS])
        self._take_over(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next epoch that has a result.

        Raises:
            TrialInfrastructureError: It failed, and may go well another time.
        """
        began = time.monotonic()
        report = self._next_report()
        ended = report.state != "running"
        if ended:
            self._run = None
        if report.state == "failed" and report.failure_class == "infrastructure":
            raise TrialInfrastructureError(report.reason)
        rows = [dataclasses.asdict(row) for row in report.rows]
        result: dict[str, Any] = {
            "state": report.state,
            "reason": report.reason,
            "failure_class": report.failure_class,
            "rows": rows,
            "generation": self._task.generation,
            "values": dict(self._task.values),
            "seconds": time.monotonic() - began,
            DONE: ended,
        }
        for row in report.rows:
            if self._settings.metric in row.metrics:
                self._last = {SCORE: row.metrics[self._settings.metric], EPOCH: row.step}
        return result if report.state == "failed" else result | self._last

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any] | None:
        """Copy the newest checkpoint where another trial may need it; else only name it."""
        origin = {"trial": self._trial, "generation": self._task.generation}
        if not self._settings.hands_on_weights:
            return origin
        from workloads.worker.checkpoint_reader import complete

        newest = complete(self._task.paths(self._settings).checkpoints)[0]
        shutil.copytree(newest, Path(checkpoint_dir) / newest.name)
        Path(checkpoint_dir, _ORIGIN).write_text(json.dumps(origin))
        return None

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a checkpoint of `save_checkpoint`: an own one lies in the folder anyway."""
        if isinstance(checkpoint, dict):
            return
        folder = Path(checkpoint)
        origin = json.loads((folder / _ORIGIN).read_text())
        if origin["trial"] == self._trial:
            self._task = dataclasses.replace(self._task, generation=origin["generation"])
            return
        generation = self._newest_generation() + 1
        self._task = dataclasses.replace(self._task, generation=generation)
        paths = self._task.paths(self._settings)
        durable.make_folder(paths.checkpoints)
        for state in folder.glob("step-*"):
            unfinished = paths.checkpoints / f"{state.name}.copy"
            shutil.copytree(state, unfinished)
            durable.move(unfinished, paths.checkpoints / state.name)

    def cleanup(self) -> None:
        """Leave the trial."""
        with contextlib.suppress(TimeoutError):  # the process ends anyway
            self._leave()

    def log_result(self, result: dict[str, Any]) -> None:
        """Leave out of a result what its receiver has: the config."""
        result.pop("config", None)

    @property
    def _trial(self) -> str:
        """The trial's name; its config may be a copy of another's."""
        return str(self.trial_id)

    def _take_over(self, config: dict[str, Any]) -> None:
        task = dict(config[TASK])
        own = int(self._trial.removeprefix("t"))
        if task["number"] != own:  # values and generation are those of the trial it goes on from
            task |= {"number": own, "generation": self._newest_generation()}
        self._task = TrialTask(**task)
        self._run = None
        self._last = {EPOCH: 0}

    def _newest_generation(self) -> int:
        folder = generation_folder(self._settings, self._trial, 0)
        found = [int(g.name[1:]) for g in folder.glob("g*") if g.name[1:].isdigit()]
        return max(found, default=0)

    def _next_report(self) -> Report:
        if self._run is not None:
            self._run.proceed()
            return self._run.next_report()
        try:
            run = self._run = self._begin()
        except ConfigError as exc:
            return Report("failed", reason=str(exc), failure_class="user")
        return run.next_report()

    def _begin(self) -> TrialRun:
        if self._settings.workers > 1:
            from orchestrator.drivers.tuning.group_run import GroupRun

            return GroupRun(self._settings, self._task)
        from orchestrator.drivers.tuning.in_process import InProcessRun

        return InProcessRun(self._settings, self._task)

    def _leave(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.abandon()
