"""An attempt from its first word to its last, as far as it needs no cluster."""

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

from orchestrator.drivers import attempt as attempts
from orchestrator.drivers.attempt import run_attempt
from orchestrator.drivers.outcome import Outcome
from orchestrator.drivers.stop_signal import StopSignal
from orchestrator.jobs.job import TAG_ATTEMPT, TAG_STOP, Job, outcome_tag
from orchestrator.jobs.states import State
from tests.fakes import FakeStore, make_spec
from tests.unit.orchestrator.test_checkpoints import profile_of
from workloads.worker.paths import JobPaths


class Store(FakeStore):
    """Takes files and metrics besides."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}

    def put_artifact(self, job: Job, name: str, content: bytes) -> None:
        self.files[name] = content

    def log_metrics(self, job: Job, points: Any) -> None:
        pass


@pytest.fixture
def store(monkeypatch) -> Store:
    store = Store()
    monkeypatch.setattr(attempts.JobStore, "of", lambda profile: store)
    return store


@pytest.fixture(autouse=True)
def signals():
    """A driver takes over the signals of its process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def job(store) -> Job:
    run_id = store.add(make_spec("one"), state=State.RUNNING)
    store.runs[run_id]["tags"][TAG_ATTEMPT] = "2"
    return store.get(run_id)


@pytest.fixture
def paths(tmp_path) -> JobPaths:
    return JobPaths(tmp_path / "one")


def test_what_an_attempt_before_left_is_gone_when_the_work_begins(store, job, paths, tmp_path):
    paths.root.mkdir()
    for path in (paths.stop, paths.progress, paths.result):
        path.write_text("{}")

    def work(paths: JobPaths, stop: StopSignal) -> Outcome:
        assert not any(p.exists() for p in (paths.stop, paths.progress, paths.result))
        return Outcome("finished", "well")

    assert run_attempt(profile_of(tmp_path), job, 2, work).kind == "finished"
    assert store.get(job.run_id).state is State.FINISHED


def test_a_failure_of_the_driver_itself_is_the_infrastructures(store, job, tmp_path):
    def work(paths: JobPaths, stop: StopSignal) -> Outcome:
        raise KeyError("something")

    run_attempt(profile_of(tmp_path), job, 2, work)
    closed = store.get(job.run_id)
    assert closed.state is State.RUNNING  # the controller decides
    assert closed.outcome(2)["class"] == "infrastructure"


def test_a_superseded_attempt_writes_nothing(store, job, tmp_path):
    def work(paths: JobPaths, stop: StopSignal) -> Outcome:
        store.runs[job.run_id]["state"] = State.SCHEDULED
        return Outcome("finished", "well")

    run_attempt(profile_of(tmp_path), job, 2, work)
    closed = store.get(job.run_id)
    assert closed.state is State.SCHEDULED
    assert outcome_tag(2) not in closed.tags


def test_a_signal_from_before_reaches_a_job_that_begins(store, job, paths, tmp_path):
    shared = StopSignal(JobPaths(tmp_path / "before"))
    (tmp_path / "before").mkdir()
    shared.install()
    signal.raise_signal(signal.SIGTERM)

    def work(paths: JobPaths, stop: StopSignal) -> Outcome:
        assert stop is shared
        assert stop.is_set
        return Outcome("stopped", "") if paths.stop.exists() else Outcome("finished", "")

    assert run_attempt(profile_of(tmp_path), job, 2, work, stop=shared).kind == "stopped"


@pytest.mark.parametrize("shared", [True, False])
def test_a_requested_stop_reaches_the_workers_of_a_shared_driver(
    store, job, paths, tmp_path, shared
):
    store.runs[job.run_id]["tags"][TAG_STOP] = "1"
    seen = []

    def work(paths: JobPaths, stop: StopSignal) -> Outcome:
        return Outcome("finished", "")

    class Watched(attempts.Tracker):
        def finish(self) -> bool:
            delivered = super().finish()
            seen.append(paths.stop.exists())
            return delivered

    attempts_tracker, attempts.Tracker = attempts.Tracker, Watched
    try:
        stop = StopSignal(paths) if shared else None
        run_attempt(profile_of(tmp_path), job, 2, work, stop=stop)
    finally:
        attempts.Tracker = attempts_tracker
    assert seen == [shared]


def test_the_log_of_an_attempt_begins_where_it_began(tmp_path):
    code = (
        "import json, sys\n"
        "from orchestrator.drivers.attempt import _own_log, output_size\n"
        "print('of the driver')\n"
        "begin = output_size()\n"
        "print('of the attempt')\n"
        "found = [_own_log(0).decode(), _own_log(begin).decode()]\n"
        "sys.stderr.write(json.dumps(found))"
    )
    with (tmp_path / "log").open("wb") as log:
        answer = subprocess.run([sys.executable, "-c", code], stdout=log, stderr=subprocess.PIPE)
    assert json.loads(answer.stderr) == ["of the driver\nof the attempt\n", "of the attempt\n"]
