"""Trials as child runs in MLflow, written in a thread of their own, off the trials' path.

The journal is the truth and this a copy of it: what the server has not taken is sent later, and
what it has taken is not sent again. Runs of an earlier attempt are found by their tags.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable

from orchestrator.drivers.outcome import say
from orchestrator.drivers.tracking import Backoff, patiently
from orchestrator.drivers.tuning.journal import Journal, Trial
from orchestrator.jobs.errors import ApiError, GcpctlError, UnreachableError
from orchestrator.jobs.job import (
    TAG_CELL,
    TAG_CONFIG,
    TAG_GROUP,
    TAG_KIND,
    TAG_PARENT,
    TAG_PHASE,
    TAG_PRUNED,
    TAG_REASON,
    TAG_SEED,
    TAG_TRIAL,
    TAG_VALUES,
    TRIAL,
    Job,
)
from orchestrator.jobs.space import config_sha256, trial_cell, trial_config
from orchestrator.jobs.states import State
from orchestrator.jobs.store import MetricPoint
from orchestrator.jobs.trial_store import TAG_SECONDS, TrialStore
from workloads.config.errors import ConfigError
from workloads.config.sweep import SweepConfig
from workloads.config.validate import flatten

_INTERVAL_S = 0.5
_STATES = {"finished": State.FINISHED, "pruned": State.KILLED, "failed": State.FAILED}


class Recorder(threading.Thread):
    """Sends what is new of each trial, and the sweep's own numbers.

    Args:
        store: A store of the thread's own.
        job: The sweep.
        sweep: What it searches.
        journal: Read only; its trials grow while this thread reads them.
        of_sweep: Gives the sweep's own metric points, as of now.
    """

    def __init__(
        self,
        store: TrialStore,
        job: Job,
        sweep: SweepConfig,
        journal: Journal,
        *,
        of_sweep: Callable[[], list[MetricPoint]],
    ) -> None:
        super().__init__(name="recorder", daemon=True)
        self._store = store
        self._job = job
        self._sweep = sweep
        self._journal = journal
        self._of_sweep = of_sweep
        self._lock = threading.Lock()
        self._changed = set(journal.trials)
        self._runs: dict[int, Job] | None = None
        self._rows_sent: dict[int, int] = {}
        self._states: dict[int, State] = {}
        self._sweep_sent: list[MetricPoint] = []
        self._ended = threading.Event()

    def note(self, trial: Trial) -> None:
        """Take up that a trial has something new."""
        with self._lock:
            self._changed.add(trial.number)

    def run(self) -> None:
        """Send until told to end; a server that is away is tried again, ever more slowly."""
        backoff, next_send, failures = Backoff(), 0.0, 0
        while not self._ended.wait(_INTERVAL_S):
            if time.monotonic() < next_send:
                continue
            try:
                self._send()
                backoff.reset()
                failures = 0
            except Exception as exc:
                failures += 1
                if failures == 1 and isinstance(exc, UnreachableError):
                    continue  # most often the server has closed a connection that lay idle
                said = (
                    exc.message if isinstance(exc, GcpctlError) else f"{type(exc).__name__}: {exc}"
                )
                say(f"tracking of trials: {said}")
                next_send = time.monotonic() + backoff.next_s()

    def finish(self, *, stopped: bool) -> bool:
        """Send all that is left; return whether the server took it.

        Args:
            stopped: Trials that have not ended go on another time; until then they are KILLED.
        """
        self._ended.set()
        if self.is_alive():
            self.join()  # a request of it ends within its time-out
        try:
            patiently(self._send)
            if stopped:
                patiently(self._rest)
        except (GcpctlError, OSError, ValueError) as exc:
            say(f"tracking of trials: {exc}")
            return False
        return True

    @property
    def run_ids(self) -> dict[int, str]:
        """Number of a trial -> its run."""
        return {number: run.run_id for number, run in (self._runs or {}).items()}

    def _send(self) -> None:
        if self._runs is None:
            self._find_runs()
        with self._lock:
            changed, self._changed = sorted(self._changed), set()
        left = set(changed)
        try:
            for number in changed:
                self._send_trial(self._journal.trials[number])
                left.discard(number)
            points = [p for p in self._of_sweep() if p not in self._sweep_sent]
            if points:
                self._store.log_metrics(self._job, points)
                self._sweep_sent = points
        except (UnreachableError, ApiError):
            self._runs = None  # an answer may have been lost: look again before anything is made
            raise
        finally:
            with self._lock:
                self._changed |= left

    def _find_runs(self) -> None:
        found: dict[int, Job] = {}
        runs = self._store.trials(self._job.job_id, experiments=[self._job.experiment_id])
        for run in runs:  # the oldest first
            if (number := run.tags.get(TAG_TRIAL, "")).isdigit():
                found.setdefault(int(number), run)
        for trial, known in found.items():
            self._states.setdefault(trial, known.state)
        self._runs = found

    def _send_trial(self, trial: Trial) -> None:
        assert self._runs is not None
        wanted = State.RUNNING if trial.end is None else _STATES[trial.end]
        # A copy first: what is appended meanwhile is sent next time.
        rows, values = list(trial.rows), dict(trial.values)
        sent = self._rows_sent.get(trial.number, 0)
        run = self._runs.get(trial.number)
        fresh = run is None
        if run is None:
            run = self._begin(trial)
        elif self._states.get(trial.number) is wanted and wanted.is_final and sent == 0:
            return  # an earlier attempt has sent it all
        newest = rows if sent > len(rows) else rows[sent:]
        points: list[MetricPoint] = [
            (key, value, row.time_ms, row.step)
            for row in newest
            for key, value in row.metrics.items()
        ]
        self._store.fill_trial(
            run,
            points=points,
            params=self._params(trial) if fresh else {},
            tags=self._tags_of_progress(trial) | ({} if fresh else self._tags_of_values(values)),
        )
        if self._states.get(trial.number) is not wanted:
            self._store.set_trial_state(run, wanted, end_ms=trial.ended_ms if trial.end else None)
            self._states[trial.number] = wanted
        self._rows_sent[trial.number] = len(rows)

    def _begin(self, trial: Trial) -> Job:
        assert self._runs is not None
        tags = {
            TAG_KIND: TRIAL,
            TAG_GROUP: self._job.job_id,
            TAG_PARENT: self._job.run_id,
            TAG_TRIAL: str(trial.number),
            **self._tags_of_values(trial.values),
        }
        run = self._store.begin_trial(
            f"{self._job.job_id}-{trial.name}",
            self._job.experiment_id,
            tags,
            start_ms=trial.created_ms,
        )
        self._runs[trial.number] = run
        self._states[trial.number] = State.RUNNING
        return run

    def _tags_of_values(self, values: dict[str, bool | int | float | str | None]) -> dict[str, str]:
        tags = {TAG_CELL: trial_cell(values), TAG_VALUES: json.dumps(values)}
        with contextlib.suppress(ConfigError):
            config = trial_config(self._sweep.base, values)
            tags |= {TAG_CONFIG: config_sha256(config), TAG_SEED: str(config.seed)}
        return tags

    def _tags_of_progress(self, trial: Trial) -> dict[str, str]:
        tags = {
            TAG_PHASE: trial.end or "training",
            TAG_REASON: trial.reason,
            TAG_SECONDS: f"{trial.seconds:.1f}",
        }
        return tags | ({TAG_PRUNED: "true"} if trial.end == "pruned" else {})

    def _params(self, trial: Trial) -> dict[str, object]:
        try:
            flat = flatten(trial_config(self._sweep.base, trial.values))
        except ConfigError:
            flat = {}
        return {**flat, **trial.values}

    def _rest(self) -> None:
        """Close the runs of trials that wait for the sweep to go on."""
        assert self._runs is not None
        for trial in self._journal.open_trials:
            run = self._runs.get(trial.number)
            if run is not None and self._states.get(trial.number) is State.RUNNING:
                tags = {TAG_PHASE: "stopped", TAG_REASON: "stopped with its sweep, which can go on"}
                self._store.fill_trial(run, tags=tags)
                self._store.set_trial_state(run, State.KILLED, end_ms=time.time_ns() // 1_000_000)
                self._states[trial.number] = State.KILLED
