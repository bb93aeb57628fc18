"""Between Ray Tune and the sweep's journal: which trial comes next, and what became of each."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.experiment.config_parser import _create_trial_from_spec, _make_parser
from ray.tune.search.search_algorithm import SearchAlgorithm
from ray.tune.stopper import NoopStopper

from orchestrator.drivers.outcome import say
from orchestrator.drivers.tuning.journal import Journal, Trial, TrialEnd
from orchestrator.drivers.tuning.search import Search
from orchestrator.drivers.tuning.trainable import SETTINGS, TASK
from orchestrator.drivers.tuning.trial import TrialSettings, TrialTask
from orchestrator.jobs.space import trial_cell
from workloads.worker.spool import SpoolRow

_FATAL = ("storage", "fenced")
"""Failures that any other trial would meet as well."""


class TrialFeeder(SearchAlgorithm):  # type: ignore[misc]
    """Hands trials to Ray Tune: first those that an earlier attempt left, then new ones.

    Nothing is handed out before the journal has it.

    Args:
        journal: Of the sweep.
        search: Chooses values.
        settings: Of all trials.
        total: Trials in all.
        cap: Trials at once.
        pauses: Whether the scheduler pauses trials.
        stopping: Whether the sweep was asked to end.
    """

    def __init__(
        self,
        journal: Journal,
        search: Search,
        settings: TrialSettings,
        *,
        total: int,
        cap: int,
        pauses: bool = False,
        stopping: Callable[[], bool],
    ) -> None:
        self._journal = journal
        self._search = search
        self._settings = asdict(settings)
        self._total = total
        self._cap = cap
        self._pauses = pauses
        self._stopping = stopping
        self._left = journal.open_trials
        self._handed: list[TuneTrial] = []
        self._parser = _make_parser()
        self._experiment: Any = None
        self._exhausted = False

    def add_configurations(self, experiments: Any) -> None:
        """Take what Ray Tune says of the experiment."""
        self._experiment = experiments[0] if isinstance(experiments, list) else experiments

    @property
    def total_samples(self) -> int:
        """Trials in all."""
        return self._total

    def next_trial(self) -> TuneTrial | None:
        """Return a trial while there is room and one to train."""
        if self.is_finished() or self._exhausted or self._busy() >= self._cap:
            return None
        if not self._left and len(self._journal.trials) >= self._total:
            return None
        trial = self._left.pop(0) if self._left else self._new()
        if trial is None:
            self._exhausted = True
            return None
        task = TrialTask(trial.number, dict(trial.values), trial.generation)
        handed = _create_trial_from_spec(
            {**self._experiment.spec, "config": {TASK: asdict(task), SETTINGS: self._settings}},
            self._parser,
            trial_id=trial.name,
        )
        self._handed.append(handed)
        return handed

    def is_quiet(self) -> bool:
        """Whether no trial runs or is about to."""
        return self._busy() == 0

    def is_finished(self) -> bool:
        """Whether no trial will come any more."""
        if self._stopping() or self._finished:
            return True
        none_left = not self._left and len(self._journal.trials) >= self._total
        # While trials take turns Ray Tune is to keep the processes of those that pause.
        turns = self._pauses and (self._busy() > 0 or self._num_paused() > 0)
        return (none_left or self._exhausted) and not turns

    def _new(self) -> Trial | None:
        number = max(self._journal.trials, default=-1) + 1
        values = self._search.choose(number, self._journal.trials)
        if values is None:
            return None
        return self._journal.create(number, values, time_ms=_now_ms())

    def _num_paused(self) -> int:
        return sum(trial.status == TuneTrial.PAUSED for trial in self._handed)

    def _busy(self) -> int:
        busy = (TuneTrial.PENDING, TuneTrial.RUNNING)
        return sum(trial.status in busy for trial in self._handed)


class Ending(Stopper):  # type: ignore[misc]
    """Ends a sweep that was asked to: once all trials have saved, paused ones are left as they are.

    Args:
        feeder: Knows which trials are under way.
        stopping: Whether the sweep was asked to end.
    """

    def __init__(self, feeder: TrialFeeder, stopping: Callable[[], bool]) -> None:
        self._feeder = feeder
        self._stopping = stopping

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Stand aside where Ray Tune pickles its state, which nobody reads."""
        return NoopStopper, ()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """End no trial by itself."""
        return False

    def stop_all(self) -> bool:
        """Whether the sweep is over."""
        return self._stopping() and self._feeder.is_quiet()


class Listener(Callback):  # type: ignore[misc]
    """Writes what trials report and how they end into the journal.

    Args:
        journal: Of the sweep.
        scheduler: Its name, for the reason of those that it ends.
        stopping: Whether the sweep was asked to end.
        changed: Told of each trial that has something new.

    Attributes:
        fatal: A failure that ends the sweep: its class and reason.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        scheduler: str,
        stopping: Callable[[], bool],
        changed: Callable[[Trial], None],
    ) -> None:
        self._journal = journal
        self._stopping = stopping
        self._scheduler = scheduler
        self._changed = changed
        self._newest: dict[str, Mapping[str, Any]] = {}
        self.fatal: tuple[str, str] | None = None

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Say that it is under way."""
        self._changed(self._journal.trials[_number(trial)])

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record epochs."""
        number = _number(trial)
        self._newest[trial.trial_id] = result
        self._journal.report(
            number,
            [SpoolRow(**row) for row in result["rows"]],
            values=result["values"],
            generation=result["generation"],
            seconds=result["seconds"],
        )
        self._changed(self._journal.trials[number])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Record how a trial ended: by itself, or because the scheduler said so."""
        result = self._newest.get(trial.trial_id, {})
        state, reason = result.get("state", "running"), result.get("reason", "")
        if state == "stopped":  # it goes on another time
            return
        if state == "failed" and result["failure_class"] in _FATAL:
            self.fatal = (result["failure_class"], reason)
            return
        if state == "running" and self._stopping():
            return
        if state == "running":
            epoch = self._journal.trials[_number(trial)].epoch
            self._end(trial, "pruned", f"stopped by {self._scheduler} after epoch {epoch}")
        else:
            self._end(trial, state, reason)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Record a trial that was tried again in vain."""
        error = trial.error_file and trial.get_error()
        words = str(error).strip().splitlines() if error else []
        reason = words[-1] if words else "its process died again and again"
        self._end(trial, "failed", f"{reason[:500]} (tried again in vain)")

    def _end(self, trial: Any, end: TrialEnd, reason: str) -> None:
        number = _number(trial)
        self._journal.end(number, end, reason=reason, time_ms=_now_ms())
        known = self._journal.trials[number]
        say(f"{known.name} {end}: {reason}  ({trial_cell(known.values)})")
        self._changed(known)


def _number(trial: Any) -> int:
    return int(trial.trial_id.removeprefix("t"))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
