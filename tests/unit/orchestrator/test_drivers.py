"""The driver's parts that need no cluster."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from orchestrator.drivers.group import read_record
from orchestrator.drivers.outcome import Outcome
from orchestrator.drivers.tracking import Backoff, LogTail, Tracker, patiently
from orchestrator.drivers.train import with_initial_weights
from orchestrator.drivers.worker import WorkerError
from orchestrator.jobs.errors import ApiError, AuthError, NotFoundError, UnreachableError
from orchestrator.jobs.job import Job, outcome_tag
from orchestrator.jobs.states import State
from workloads.worker.paths import JobPaths
from workloads.worker.spool import SpoolWriter, make_row


def make_job(**tags: str) -> Job:
    return Job("r", "1", State.RUNNING, {"gcpctl.attempt": "1"} | tags, {}, 0, None, "")


class Store:
    """Takes metrics as MLflow does: a point that comes twice is there once."""

    def __init__(self) -> None:
        self.points: dict[tuple, int] = {}
        self.tags: dict[str, str] = {}
        self.away = False
        self.lose_reply = False

    def get(self, run_id):
        if self.away:
            raise UnreachableError("away")
        return make_job()

    def log_metrics(self, job, points):
        for point in points:
            self.points[point] = self.points.get(point, 0) + 1
        if self.lose_reply:
            self.lose_reply = False
            raise UnreachableError("the reply was lost")

    def set_tags(self, job, tags):
        self.tags |= tags


@pytest.fixture
def paths(tmp_path) -> JobPaths:
    return JobPaths(tmp_path / "job")


def write_epochs(paths: JobPaths, first: int, last: int) -> None:
    paths.root.mkdir(exist_ok=True)
    spool = SpoolWriter.open(paths.spool, resume_at=first - 1)
    for step in range(first, last + 1):
        spool.append(make_row(step, step, {"loss": 1.0 / step}))
        spool.sync(spool.take(step))
        spool.commit(step)
    spool.close()


def test_an_outage_loses_no_point_and_doubles_none(paths):
    store = Store()
    tracker = Tracker(store, make_job(), 1, paths)
    write_epochs(paths, 1, 3)
    assert tracker._send_once()
    write_epochs(paths, 4, 5)
    store.away, tracker._next_fence_check = True, 0.0
    assert not tracker._send_once()
    store.away, store.lose_reply = False, True
    assert not tracker._send_once()
    assert tracker._send_once()
    assert sorted({(key, step) for key, _, _, step in store.points}) == [
        ("loss", step) for step in range(1, 6)
    ]
    assert len(store.points) == 5  # those sent again were equal in value, time and step


def test_a_new_driver_goes_on_where_the_last_one_was(paths):
    store = Store()
    write_epochs(paths, 1, 3)
    assert Tracker(store, make_job(), 1, paths)._send_once()
    write_epochs(paths, 4, 4)
    assert Tracker(store, make_job(), 2, paths)._send_once()
    assert list(store.points.values()) == [1, 1, 1, 1]


def test_no_answer_can_end_the_thread(paths):
    store = Store()
    store.get = lambda run_id: {}["nothing foreseen"]
    assert not Tracker(store, make_job(), 1, paths)._send_once()


def test_a_refused_token_is_not_waited_for(paths):
    def refuse(run_id):
        raise AuthError("refused")

    store = Store()
    store.get = refuse
    tracker = Tracker(store, make_job(), 1, paths)
    tracker.start()
    began = time.monotonic()
    assert not tracker.finish()
    assert time.monotonic() - began < 10


def test_an_overtaken_driver_ends_itself(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.unit.orchestrator.test_drivers import *\n"
        "store = Store(); store.get = lambda run_id: make_job(**{'gcpctl.attempt': '2'})\n"
        f"Tracker(store, make_job(), 1, JobPaths(Path({str(tmp_path)!r})))._send_once()\n"
        "print('still here')"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 75
    assert "attempt 2 has taken over" in answer.stdout
    assert "still here" not in answer.stdout


@pytest.mark.parametrize(
    ("job", "passes_on", "stops"),
    [
        (make_job(), True, False),
        (make_job(**{"gcpctl.stop_requested": "1"}), True, True),
        (make_job(**{"gcpctl.stop_requested": "1"}), False, False),  # its driver gets a signal
        (replace(make_job(), state=State.SCHEDULED), True, True),  # taken back as it began
    ],
)
def test_a_stop_of_one_job_reaches_its_workers_only(paths, job, passes_on, stops):
    paths.root.mkdir()
    store = Store()
    store.get = lambda run_id: job
    tracker = Tracker(store, make_job(), 1, paths, passes_stop_on=passes_on)
    assert tracker._send_once()
    assert paths.stop.exists() == stops


def test_patience_waits_for_a_server_and_for_nothing_else():
    locked = ApiError("locked", status=500, text="")
    answers = [UnreachableError("away"), locked, "here"]

    def act():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently(act) == "here"
    answers = [ApiError("no such run", status=400, text="")]
    with pytest.raises(ApiError):
        patiently(act)
    with pytest.raises(UnreachableError):
        patiently(lambda: (_ for _ in ()).throw(UnreachableError("away")), seconds=0)


def test_pauses_grow_and_begin_anew():
    backoff = Backoff()
    assert [backoff.next_s() for _ in range(6)] == [1, 2, 4, 8, 15, 15]
    backoff.reset()
    assert backoff.next_s() == 1


def test_logs_are_copied_by_complete_lines(tmp_path, capsys):
    folder = tmp_path / "logs"
    folder.mkdir()
    tail = LogTail(folder)
    (folder / "rank-1.log").write_text("one\nhal")
    tail.copy_new_lines()
    with (folder / "rank-1.log").open("a") as file:
        file.write("f\n")
    tail.copy_new_lines()
    assert capsys.readouterr().out == "[rank 1] one\n[rank 1] half\n"


def test_an_outcome_fits_into_a_tag_whatever_its_language():
    outcome = Outcome.failed("user", "картинка/" * 1000)
    assert len(outcome.to_json()) < 8000
    job = make_job(**{outcome_tag(1): outcome.to_json()})
    assert job.outcome(1)["class"] == "user"
    assert job.outcome(1)["reason"].endswith("… (more in the log)")
    assert make_job(**{outcome_tag(1): outcome.to_json()[:100]}).outcome(1) == {}


def test_a_workers_record_comes_back_through_ray():
    record = {"class": "storage", "rank": 1, "type": "X", "message": "m", "traceback": "t"}
    assert read_record(WorkerError(json.dumps(record))) == record
    assert read_record(RuntimeError("killed")) is None


def test_initial_weights_are_found_when_the_first_attempt_starts(tmp_path):
    paths = JobPaths(tmp_path / "second")
    first = JobPaths(tmp_path / "first")
    pending = f"{first.root}:last"
    config = {"seed": 0, "init": {"weights": pending, "classifier": "keep"}}
    with pytest.raises(NotFoundError, match="first has no checkpoint"):
        with_initial_weights(None, config, paths)
    saved = first.checkpoints / "step-0000000044"
    saved.mkdir(parents=True)
    found = with_initial_weights(None, config, paths)
    assert found == {"seed": 0, "init": {"weights": str(saved), "classifier": "keep"}}
    assert config["init"]["weights"] == pending
    # What resumes needs none, and those may be gone by then.
    (paths.checkpoints / "step-0000000001").mkdir(parents=True)
    saved.rmdir()
    assert with_initial_weights(None, config, paths) == config
    assert with_initial_weights(None, {"init": None}, paths) == {"init": None}
