"""A study in the queue: it waits for its members, says how far they are, and reports at the end."""

import pytest

from orchestrator.jobs.job import (
    TAG_COUNTED,
    TAG_MEMBERS,
    TAG_REASON,
    TAG_STOP,
    TAG_SUBMITTED,
    member_tag,
)
from orchestrator.jobs.spec import Resources
from orchestrator.jobs.states import State
from tests.fakes import make_spec
from tests.unit.orchestrator.controller.world import World


def submit_study(world: World, name: str = "study", *, whole: bool = True, **fields) -> str:
    tags = {TAG_SUBMITTED: "true"} if whole else {}
    return world.submit(name, kind="ablation", tags=tags, **fields)


def submit_member(world: World, name: str, study: str = "study", **fields) -> str:
    return world.submit(name, group=study, tags={member_tag(study): f"cell={name}"}, **fields)


@pytest.fixture
def world() -> World:
    """Room for two of a study's three members."""
    world = World(cpus=2)
    submit_study(world)
    for name in "abc":
        submit_member(world, name)
    return world


def test_a_study_waits_for_its_members_and_is_launched_last(world):
    world.step()
    assert world.ray.launches == ["a-a1", "b-a1"]
    assert world.job("study").state is State.SCHEDULED
    world.finish("a")
    world.step(seconds=5)
    for name in "bc":
        world.finish(name)
    assert world.step() == ["study: launched attempt 1"]
    assert world.ray.launches[-1] == "study-a1"


def test_it_says_how_far_they_are(world):
    world.step()
    assert world.job("study").reason == "0 of 3 done, 0 running"
    world.step(seconds=1)
    assert world.job("study").reason == "0 of 3 done, 0 running"  # not so soon
    world.step(seconds=2)
    assert world.job("study").reason == "0 of 3 done, 2 running"
    world.finish("a")
    world.step(seconds=3)
    assert world.job("study").reason == "1 of 3 done, 1 running"
    assert world.tags("study")[TAG_MEMBERS] == "3"
    for name in "bc":
        world.finish(name)
    world.step(seconds=3)
    assert world.job("study").reason == ""  # launched


def test_what_has_not_changed_is_neither_asked_for_nor_written_again(world):
    for _ in range(3):
        world.step(seconds=5)
    writes, requests = world.store.writes, world.store.requests
    world.step(seconds=5)
    assert world.store.writes == writes
    assert world.store.requests - requests == 1  # what is active


def test_members_that_failed_do_not_fail_the_study(world):
    world.step()
    for name in "abc":
        run = world.job(name).run_id
        world.store.runs[run]["state"] = State.FAILED if name == "a" else State.KILLED
    assert world.step() == ["study: launched attempt 1"]


def test_jobs_of_others_are_members_too(world):
    world.submit("foreign", tags={member_tag("study"): "cell=d"})
    world.ray.cpus = 9
    world.step()
    for name in "abc":
        world.finish(name)
    world.step(seconds=5)
    assert world.job("study").reason == "3 of 4 done, 1 running"
    world.finish("foreign")
    assert world.step() == ["study: launched attempt 1"]


def test_a_study_holds_nobody_back_and_is_no_blocker():
    world = World(cpus=1)
    first = make_spec("study", kind="ablation", num_workers=1)
    wide = first.model_copy(update={"resources": Resources(num_workers=1, cpus_per_worker=1)})
    world.store.add(wide, submitted_ms=0, tags={TAG_SUBMITTED: "true"})
    submit_member(world, "a")
    world.submit("other")
    world.step()
    assert world.ray.launches == ["a-a1"]
    assert world.job("other").reason == "waiting: needs 1 CPUs, 0 CPUs free"


def test_a_study_that_is_due_waits_for_room_like_any_job():
    world = World(cpus=1)
    world.submit("before")
    world.step()
    submit_study(world)
    world.submit("after")
    world.step()
    assert world.job("after").reason == "waiting: behind study in the queue"
    world.finish("before")
    assert world.step() == ["study: launched attempt 1"]


def test_an_unfinished_member_that_was_not_read_is_asked_for():
    world = World(cpus=4)
    submit_study(world)
    submit_member(world, "far")
    read = world.store.active
    world.store.active = lambda: [job for job in read() if job.job_id != "far"]
    world.step()
    assert world.job("study").reason == "0 of 1 done, 0 running"
    world.finish("far")
    assert world.step() == ["study: launched attempt 1"]


def test_in_a_long_queue_the_members_are_counted_in_the_store_now_and_then():
    world = World(cpus=0)
    submit_study(world)
    for i in range(3):
        submit_member(world, f"m{i}")
    for i in range(120):
        world.submit(f"other{i}", after=("m0",))
    read = world.store.active
    world.store.active = lambda: [job for job in read() if job.job_id != "m2"]
    world.step()
    assert world.job("study").reason == "0 of 3 done, 0 running"
    world.finish("m0")
    world.step(seconds=5)
    assert world.job("study").reason == "0 of 3 done, 0 running"
    world.step(seconds=20)
    assert world.job("study").reason == "1 of 3 done, 0 running"
    counted = world.store.requests
    world.step(seconds=5)
    assert world.store.requests - counted < 30  # no listing of members in it


def test_a_study_whose_submit_was_cut_off_concludes_nothing():
    world = World()
    submit_study(world, whole=False)
    world.step()
    assert (world.job("study").state, world.job("study").reason) == (State.SCHEDULED, "")
    world.step(seconds=100)
    assert "submit the study again" in world.job("study").reason
    world.tags("study")[TAG_SUBMITTED] = "true"
    assert world.step() == ["study: launched attempt 1"]


def test_a_study_submitted_again_is_not_taken_for_cut_off(world):
    world.step()
    world.step(seconds=3600)
    again = {TAG_SUBMITTED: "", TAG_COUNTED: str(world.now_ms), TAG_REASON: ""}
    world.tags("study").update(again)  # as submitting it again does
    world.step(seconds=30)
    assert world.job("study").reason == ""
    world.step(seconds=60)
    assert "submit the study again" in world.job("study").reason


def test_a_waiting_study_can_be_stopped(world):
    world.step()
    world.tags("study")[TAG_STOP] = str(world.now_ms)
    assert world.step() == ["study: stopped while queued"]
    assert world.job("study").state is State.KILLED


def test_a_sweep_is_a_job_like_any_other():
    world = World(cpus=2)
    world.submit("sweep", kind="tune", num_workers=2)
    world.submit("next")
    world.step()
    assert world.ray.launches == ["sweep-a1"]
    assert world.job("next").reason == "waiting: needs 1 CPUs, 0 CPUs free"
