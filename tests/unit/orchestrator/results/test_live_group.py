"""A study looked at again and again: nothing is missed, and little is read."""

import re
from dataclasses import replace

import pytest

from orchestrator.jobs.job import TAG_SUBMITTED, Job, member_tag
from orchestrator.jobs.states import State
from orchestrator.results.live_group import LiveGroup
from tests.unit.orchestrator.results.test_progress import PARENT, STUDY, job


class Store:
    """Answers as the tracking server would, and counts the runs that were read."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs = {job.run_id: job for job in jobs}
        self.read = 0

    def put(self, name: str, state: State, *, end_ms: int | None = None) -> None:
        self.jobs[name] = replace(self.jobs[name], state=state, end_ms=end_ms)

    def members(self, group, *, experiments=None, also=""):
        tag = member_tag(group)
        return self._answer([job for job in self.jobs.values() if tag in job.tags], also)

    def trials(self, group, *, experiments=None, also=""):
        found = [job for job in self.jobs.values() if job.group == group and job.kind == "trial"]
        return self._answer(found, also)

    def get(self, run_id):
        self.read += 1
        return self.jobs[run_id]

    def _answer(self, jobs: list[Job], also: str) -> list[Job]:
        if ended := re.fullmatch(r"attributes\.end_time > (\d+)", also):
            jobs = [job for job in jobs if job.end_ms is not None and job.end_ms > int(ended[1])]
        elif also:
            assert also == "attributes.status = 'RUNNING'"
            jobs = [job for job in jobs if job.state is State.RUNNING]
        self.read += len(jobs)
        return jobs


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def cells(*states: State) -> list[Job]:
    return [job(f"t{n}", "train", state, "a=1", n) for n, state in enumerate(states)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def states(jobs: list[Job]) -> str:
    return "".join(job.state.value[0] for job in jobs)


def test_after_the_first_look_only_what_moves_is_read(clock):
    waiting = [job(f"w{n:03}", "train", State.SCHEDULED, "a=2", n) for n in range(200)]
    over = [
        replace(job(f"o{n:03}", "train", State.FINISHED, "a=3", n), end_ms=n) for n in range(99)
    ]
    last = replace(job("o", "train", State.FINISHED, "a=3", 99), end_ms=60_000)
    store = Store(*over, last, *cells(State.RUNNING), *waiting)
    live = LiveGroup(store, PARENT, clock=clock)
    assert len(live.look(PARENT)) == 301
    store.read = 0
    assert len(live.look(PARENT)) == 301
    assert store.read <= 3


def test_what_starts_and_what_ends_is_seen_at_the_next_look(clock):
    store = Store(*cells(State.FINISHED, State.RUNNING, State.SCHEDULED, State.SCHEDULED))
    live = LiveGroup(store, PARENT, clock=clock)
    assert states(live.look(PARENT)) == "FRSS"
    store.put("t1", State.FINISHED, end_ms=20_000)
    store.put("t2", State.RUNNING)
    assert states(live.look(PARENT)) == "FFRS"
    # Both moves between two looks, and one that never ran.
    store.put("t2", State.FAILED, end_ms=21_000)
    store.put("t3", State.KILLED, end_ms=21_000)
    assert states(live.look(PARENT)) == "FFFK"


def test_one_that_goes_back_into_the_queue_does_not_seem_to_run(clock):
    store = Store(*cells(State.RUNNING, State.SCHEDULED))
    live = LiveGroup(store, PARENT, clock=clock)
    live.look(PARENT)
    store.put("t0", State.SCHEDULED)
    assert states(live.look(PARENT)) == "SS"


def test_clocks_may_differ_by_seconds(clock):
    store = Store(*cells(State.FINISHED, State.SCHEDULED))
    live = LiveGroup(store, PARENT, clock=clock)
    live.look(PARENT)
    store.put("t1", State.FINISHED, end_ms=store.jobs["t0"].end_ms - 4_000)
    assert states(live.look(PARENT)) == "FF"


def test_what_was_queued_again_or_joins_is_seen_within_a_minute(clock):
    store = Store(*cells(State.FAILED))
    live = LiveGroup(store, PARENT, clock=clock)
    live.look(PARENT)
    store.put("t0", State.SCHEDULED)
    store.jobs["new"] = job("new", "train", State.SCHEDULED, "a=9")
    clock.now = 60.0
    assert states(live.look(PARENT)) == "SS"


@pytest.mark.parametrize(
    "moved",
    [
        replace(PARENT, state=State.FINISHED),
        replace(PARENT, tags={**PARENT.tags, TAG_SUBMITTED: "true"}),
    ],
)
def test_when_the_study_itself_moves_all_is_read(clock, moved):
    store = Store(*cells(State.FAILED))
    live = LiveGroup(store, PARENT, clock=clock)
    live.look(PARENT)
    store.jobs["new"] = job("new", "train", State.SCHEDULED, "a=9")
    assert len(live.look(moved)) == 2


def test_a_sweep_has_its_trials(clock):
    sweep = job("sweep", "tune", State.RUNNING, "", group="")
    trials = [job(f"t{n}", "trial", State.RUNNING, "lr=1", group="sweep") for n in range(2)]
    store = Store(sweep, *trials, *cells(State.RUNNING)[:0])
    live = LiveGroup(store, sweep, clock=clock)
    assert states(live.look(sweep)) == "RR"
    store.put("t1", State.KILLED, end_ms=5)
    assert states(live.look(sweep)) == "RK"
    assert STUDY not in {job.job_id for job in live.look(sweep)}
