"""A driver that runs several jobs: which it takes up, and what becomes of the others."""

from collections.abc import Callable
from typing import Any

import pytest

from cluster.profiles import Profile
from orchestrator.drivers.outcome import Outcome, say
from orchestrator.drivers.pack import PackDriver
from orchestrator.jobs.ids import submission_id
from orchestrator.jobs.job import TAG_ATTEMPT, TAG_BEGUN, TAG_HOST, TAG_QUEUE_KEY, Job
from orchestrator.jobs.logs import slice_log
from orchestrator.jobs.states import State
from tests.fakes import FakeStore, make_spec
from tests.unit.orchestrator.test_checkpoints import profile_of

HOST = submission_id("first", 1)


class Store(FakeStore):
    """Answers the one search that the driver makes."""

    def __init__(self) -> None:
        super().__init__()
        self.before_begin: Callable[[Job], None] = lambda job: None

    def search(self, where: str, *, limit: int, order_by: list[str]) -> list[Job]:
        assert where == f"attributes.status = 'RUNNING' AND tags.`{TAG_HOST}` = '{HOST}'"
        assert order_by == [f"tags.`{TAG_QUEUE_KEY}` ASC"]
        jobs = [self._job(run_id) for run_id in self.runs]
        mine = [j for j in jobs if j.state is State.RUNNING and j.tags.get(TAG_HOST) == HOST]
        return sorted(mine, key=lambda job: job.tags[TAG_QUEUE_KEY])[:limit]

    def set_tags(self, job: Job, tags: Any) -> None:
        if TAG_BEGUN in tags:
            self.before_begin(job)
        super().set_tags(job, tags)

    def hand(self, job_id: str, *, at: int, attempt: int = 1, **fields: Any) -> str:
        """Record a job as handed to the driver; `at` orders the queue."""
        run_id = self.add(make_spec(job_id, pack="p", **fields), submitted_ms=at)
        self.runs[run_id]["state"] = State.RUNNING
        self.runs[run_id]["tags"] |= {TAG_HOST: HOST, TAG_ATTEMPT: str(attempt)}
        return run_id


class Runner:
    """Stands where an attempt is run: closes the job as the driver does."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ran: list[str] = []
        self.begins: list[int] = []
        self.outcomes: dict[str, Outcome] = {}
        self.meanwhile: dict[str, Callable[[Any], None]] = {}

    def __call__(self, job: Job, attempt: int, stop: Any, *, log_begins_at: int) -> Outcome:
        name = f"{job.job_id}-a{attempt}"
        assert job.job_id == "first" or job.tags[TAG_BEGUN] == str(attempt)
        self.ran.append(name)
        self.begins.append(log_begins_at)
        say(f"working on {name}")
        self.meanwhile.get(job.job_id, lambda stop: None)(stop)
        outcome = self.outcomes.get(job.job_id, Outcome("finished", "done"))
        if outcome.kind == "finished":
            self.store.move(job, State.FINISHED, phase="finished", reason="")
        else:
            self.store.driver_says(job.run_id, attempt, {"outcome": outcome.kind})
        return outcome


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def runner(store) -> Runner:
    return Runner(store)


@pytest.fixture
def drive(store, runner, tmp_path) -> Callable[[], int]:
    first = store.add(make_spec("first", pack="p"), submitted_ms=0)
    store.runs[first]["state"] = State.RUNNING
    store.runs[first]["tags"] |= {TAG_ATTEMPT: "1", TAG_HOST: ""}
    profile: Profile = profile_of(tmp_path)
    (tmp_path / "first").mkdir()
    return lambda: PackDriver(profile, store.get(first), runner, store).run()


def test_alone_it_ends_after_its_own_job(drive, runner):
    assert drive() == 1
    assert runner.ran == ["first-a1"]


def test_what_is_handed_over_runs_in_the_order_of_the_queue(store, drive, runner):
    store.hand("late", at=30, attempt=3)
    store.hand("early", at=10)
    # Handed over while others run: the controller keeps the driver supplied.
    runner.meanwhile["late"] = lambda stop: store.hand("last", at=5)
    assert drive() == 4
    assert runner.ran == ["first-a1", "early-a1", "late-a3", "last-a1"]


def test_a_failure_is_not_the_others(store, drive, runner):
    store.hand("bad", at=10)
    store.hand("good", at=20)
    runner.outcomes["bad"] = Outcome.failed("user", "no such file")
    drive()
    assert runner.ran == ["first-a1", "bad-a1", "good-a1"]


def test_a_signal_leaves_what_was_handed_over_untouched(store, drive, runner):
    run_id = store.hand("next", at=10)
    runner.meanwhile["first"] = lambda stop: setattr(stop, "is_set", True)
    assert drive() == 1
    assert TAG_BEGUN not in store.runs[run_id]["tags"]
    assert store.get(run_id).state is State.RUNNING


@pytest.mark.parametrize(
    ("change", "later"),
    [
        ({"state": State.SCHEDULED}, []),
        ({"state": State.KILLED}, []),
        ({"tags": {TAG_HOST: submission_id("other", 1)}}, []),
        ({"tags": {TAG_ATTEMPT: "2"}}, ["taken-a2"]),  # and handed over anew
    ],
)
def test_one_that_is_taken_back_at_the_last_moment_is_left_alone(
    store, drive, runner, change, later
):
    taken = store.hand("taken", at=10)
    store.hand("kept", at=20)

    def take_back(job: Job) -> None:
        if job.run_id == taken:
            store.runs[taken]["state"] = change.get("state", State.RUNNING)
            store.runs[taken]["tags"] |= change.get("tags", {})

    store.before_begin = take_back
    drive()
    assert runner.ran == ["first-a1", "kept-a1", *later]


def test_an_evaluation_follows_its_training_whatever_the_order(store, drive, runner):
    store.hand("eval", at=1, after=("train",))
    store.hand("train", at=10)
    drive()
    assert runner.ran == ["first-a1", "train-a1", "eval-a1"]


@pytest.mark.parametrize("elsewhere", [State.FINISHED, State.FAILED, State.RUNNING, None])
def test_an_evaluation_needs_its_training_finished(store, drive, runner, elsewhere):
    store.hand("eval", at=1, after=("train",))
    if elsewhere is not None:
        store.add(make_spec("train"), state=elsewhere)
    drive()
    expected = ["eval-a1"] if elsewhere is State.FINISHED else []
    assert runner.ran == ["first-a1", *expected]


def test_an_evaluation_of_a_training_that_failed_here_is_not_run(store, drive, runner):
    store.hand("train", at=1)
    store.hand("eval", at=2, after=("train",))
    runner.outcomes["train"] = Outcome.failed("infrastructure", "out of memory")
    drive()
    assert runner.ran == ["first-a1", "train-a1"]


def test_each_job_has_its_part_of_the_log(store, drive, capfd):
    store.hand("next", at=10, attempt=2)
    say("the driver starts")
    drive()
    say("the driver ends")
    log = capfd.readouterr().out
    assert slice_log(log, "first", 1, is_own=True) == "the driver starts\nworking on first-a1\n"
    assert slice_log(log, "next", 2, is_own=False) == "working on next-a2\n"
    assert slice_log(log, "next", 1, is_own=False) == ""
