"""Child runs in MLflow: each trial once, whatever is killed or away meanwhile."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.drivers.tuning.conclusion import sweep_points
from orchestrator.drivers.tuning.journal import Journal
from orchestrator.drivers.tuning.recording import Recorder
from orchestrator.jobs.errors import UnreachableError
from orchestrator.jobs.job import TAG_GROUP, TAG_KIND, TAG_PARENT, TAG_PRUNED, TAG_VALUES, Job
from orchestrator.jobs.space import config_sha256, trial_config
from orchestrator.jobs.space_text import parse_dimension
from orchestrator.jobs.states import State
from workloads.config.sweep import SweepConfig
from workloads.worker.ownership import Ownership
from workloads.worker.paths import JobPaths
from workloads.worker.spool import SpoolRow

SWEEP = SweepConfig(
    recipe="digits",
    base={"epochs": 3},
    space=(parse_dimension("optim.lr=loguniform(1e-3, 1)"),),
    num_trials=3,
)
JOB = Job("parent", "1", State.RUNNING, {"gcpctl.job_id": "tune-x"}, {}, 0, None, "")


class Server:
    """Keeps runs as MLflow does; may lose a request or its answer."""

    def __init__(self) -> None:
        self.runs: dict[str, Job] = {}
        self.params: dict[str, dict[str, Any]] = {}
        self.points: dict[str, dict[tuple, float]] = {}
        self.requests: list[str] = []
        self.lose_request_at = self.lose_answer_at = -1
        self._ids = itertools.count()

    def trials(self, group: str, *, experiments: list[str]) -> list[Job]:
        self.requests.append("search")
        return [run for run in self.runs.values() if run.tags[TAG_GROUP] == group]

    def begin_trial(self, name, experiment_id, tags, *, start_ms) -> Job:
        self._lose_request()
        run_id = f"run{next(self._ids)}"
        self.runs[run_id] = Job(
            run_id,
            experiment_id,
            State.RUNNING,
            {**tags, "mlflow.runName": name},
            {},
            start_ms,
            None,
            "",
        )
        self._lose_answer("begin")
        return self.runs[run_id]

    def fill_trial(self, trial, *, points=(), params=None, tags) -> None:
        self._lose_request()
        self.params.setdefault(trial.run_id, {}).update(params or {})
        for key, value, time_ms, step in points:
            self.points.setdefault(trial.run_id, {})[(key, step, time_ms)] = value
        run = self.runs[trial.run_id]
        self.runs[trial.run_id] = replace(run, tags={**run.tags, **tags})
        self._lose_answer("fill")

    def set_trial_state(self, trial, state, *, end_ms=None) -> None:
        self._lose_request()
        self.runs[trial.run_id] = replace(self.runs[trial.run_id], state=state, end_ms=end_ms)
        self._lose_answer("state")

    def log_metrics(self, job, points) -> None:
        self.requests.append("sweep")
        for key, value, time_ms, step in points:
            self.points.setdefault(job.run_id, {})[(key, step, time_ms)] = value

    def _lose_request(self) -> None:
        if len(self.requests) == self.lose_request_at:
            self.requests.append("lost")
            raise UnreachableError("away")

    def _lose_answer(self, what: str) -> None:
        self.requests.append(what)
        if len(self.requests) - 1 == self.lose_answer_at:
            raise UnreachableError("away")

    def seen(self) -> list[tuple]:
        """What a person sees of the trials."""
        return sorted(
            (
                run.job_id,
                run.state.value,
                run.tags.get(TAG_PRUNED, ""),
                run.tags[TAG_VALUES],
                tuple(sorted(self.points.get(run.run_id, {}).items())),
            )
            for run in self.runs.values()
        )


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    ownership = Ownership(JobPaths(tmp_path / "tune-x"), 1)
    ownership.claim()
    journal = Journal(tmp_path / "tune-x" / "journal.jsonl", ownership)
    for number, end in enumerate(("finished", "pruned", "failed")):
        journal.create(number, {"optim.lr": 0.1 * (number + 1)}, time_ms=number)
        for epoch in range(1, 3):
            row = SpoolRow(epoch, epoch, 100 + epoch, {"val/top1": 10.0 * number + epoch})
            journal.report(
                number, [row], values=journal.trials[number].values, generation=0, seconds=1.5
            )
        journal.end(number, end, reason=f"because {end}", time_ms=1000 + number)
    journal.create(3, {"optim.lr": 0.5}, time_ms=3)
    return journal


def recorder_of(server: Server, journal: Journal) -> Recorder:
    points = lambda: sweep_points(SWEEP, journal)  # noqa: E731
    return Recorder(server, JOB, SWEEP, journal, of_sweep=points)


def test_each_trial_is_a_child_run(journal):
    server = Server()
    assert recorder_of(server, journal).finish(stopped=False)
    runs = list(server.runs.values())
    assert [run.state.value for run in runs] == ["FINISHED", "KILLED", "FAILED", "RUNNING"]
    first, pruned = runs[0], runs[1]
    assert first.job_id == "tune-x-t000"
    assert first.tags[TAG_KIND] == "trial"
    assert first.tags[TAG_PARENT] == "parent"
    assert first.cell == "lr=0.1"
    assert json.loads(first.tags[TAG_VALUES]) == {"optim.lr": 0.1}
    config = trial_config(SWEEP.base, {"optim.lr": 0.1})
    assert first.tags["gcpctl.config_sha256"] == config_sha256(config)
    assert server.params["run0"]["epochs"] == 3
    assert server.params["run0"]["optim.lr"] == 0.1
    assert pruned.tags[TAG_PRUNED] == "true"
    assert pruned.reason == "because pruned"
    assert pruned.end_ms == 1001
    assert TAG_PRUNED not in first.tags
    assert {key for key, _, _ in server.points["parent"]} >= {"tune/best_val_top1", "tune/pruned"}


def test_a_short_trial_takes_three_requests(journal):
    server = Server()
    recorder_of(server, journal).finish(stopped=False)
    assert server.requests.count("begin") == 4
    assert server.requests.count("fill") == 4
    assert server.requests.count("state") == 3
    assert len(server.requests) == 4 + 4 + 3 + 2


def test_any_lost_request_or_answer_changes_nothing(journal, monkeypatch):
    monkeypatch.setattr("orchestrator.drivers.tracking.time.sleep", lambda s: None)
    plain = Server()
    recorder_of(plain, journal).finish(stopped=False)
    for field in ("lose_request_at", "lose_answer_at"):
        for at in range(len(plain.requests)):
            server = Server()
            setattr(server, field, at)
            assert recorder_of(server, journal).finish(stopped=False)
            assert server.seen() == plain.seen(), (field, at)


def test_the_next_attempt_finds_the_runs_and_sends_nothing_of_those_that_ended(journal):
    server = Server()
    recorder_of(server, journal).finish(stopped=False)
    before, sent = server.seen(), len(server.requests)
    recorder_of(server, journal).finish(stopped=False)
    assert server.seen() == before
    # The one under way, and the sweep's numbers.
    assert server.requests[sent:] == ["search", "fill", "sweep"]


def test_a_stopped_sweep_closes_its_trials_and_opens_them_again(journal):
    server = Server()
    recorder_of(server, journal).finish(stopped=True)
    waiting = server.runs["run3"]
    assert (waiting.state, waiting.phase) == (State.KILLED, "stopped")
    recorder_of(server, journal).finish(stopped=False)
    assert server.runs["run3"].state is State.RUNNING
    assert len(server.runs) == 4
