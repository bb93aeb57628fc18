"""The control loop, step by step, against stores in memory."""

import json

import pytest

from orchestrator.jobs.errors import UnreachableError
from orchestrator.jobs.job import TAG_PROGRESS, TAG_SPEC, TAG_STOP
from orchestrator.jobs.spec import Resources
from orchestrator.jobs.states import State
from tests.fakes import Crash, make_spec
from tests.unit.orchestrator.controller.world import World


@pytest.fixture
def world() -> World:
    return World()


def test_a_queued_job_is_launched_once(world):
    world.submit("a")
    assert world.step() == ["a: launched attempt 1"]
    assert world.step() == []
    assert world.ray.launches == ["a-a1"]
    assert (world.job("a").state, world.job("a").phase) == (State.RUNNING, "launching")


def test_a_finished_job_is_left_alone(world):
    run = world.submit("a")
    world.step()
    world.store.runs[run]["state"] = State.FINISHED
    world.ray.end("a-a1", "SUCCEEDED")
    assert world.step() == []


def test_a_killed_driver_is_followed_by_a_second_attempt(world):
    world.submit("a")
    world.step()
    world.ray.end("a-a1")
    (event,) = world.step(seconds=0.1)
    assert "queued again" in event
    assert world.job("a").state is State.SCHEDULED
    assert world.archived == [("a", 1)]
    assert world.step(seconds=0.1) == []  # the back-off
    assert world.step(seconds=2) == ["a: launched attempt 2"]
    assert world.ray.launches == ["a-a1", "a-a2"]
    assert world.job("a").reason == "attempt 2, after: attempt 1 failed: exit 137"


def test_retries_end(world):
    world.submit("a", max_retries=2)
    for _ in range(40):
        world.step(seconds=400)
        for name in list(world.ray.jobs):
            world.ray.end(name)
    assert world.ray.launches == ["a-a1", "a-a2", "a-a3"]
    assert world.job("a").state is State.FAILED
    assert "after 2 retries without progress" in world.job("a").reason


def test_a_driver_killed_before_it_wrote_the_state_has_finished_all_the_same(world):
    run = world.submit("a")
    world.step()
    world.store.driver_says(run, 1, {"outcome": "finished", "reason": "top-1 50 %"})
    world.ray.end("a-a1")
    assert world.step() == ["a: FINISHED: top-1 50 %"]
    assert (world.job("a").state, world.job("a").reason) == (State.FINISHED, "top-1 50 %")
    world.step(seconds=60)
    assert world.ray.launches == ["a-a1"]


def test_a_users_error_fails_at_once(world):
    run = world.submit("a")
    world.step()
    world.store.driver_says(run, 1, {"outcome": "failed", "class": "user", "reason": "bad lr"})
    world.ray.end("a-a1")
    world.step()
    assert (world.job("a").state, world.job("a").reason) == (State.FAILED, "bad lr")


def test_a_lost_head_costs_one_attempt(world):
    world.submit("a")
    world.step()
    world.step()  # sees that Ray knows it
    world.ray.lose_head()
    world.step()
    assert "lost with the Ray head" in world.job("a").reason
    world.step(seconds=2)
    assert world.ray.launches == ["a-a1", "a-a2"]


def test_an_attempt_that_ended_before_the_head_was_lost_is_not_launched_again(world):
    run = world.submit("a")
    world.step()
    said = {"outcome": "failed", "class": "infrastructure", "reason": "a worker died"}
    world.store.driver_says(run, 1, said)
    world.ray.lose_head()  # before any step has seen that Ray knows it
    world.step()
    assert world.job("a").reason == "attempt 1 failed: a worker died"
    world.step(seconds=2)
    assert world.ray.launches == ["a-a1", "a-a2"]


def test_an_unreachable_head_costs_nothing(world):
    world.submit("a")
    world.step()
    world.ray.reachable = False
    for _ in range(100):
        with pytest.raises(UnreachableError):
            world.step(seconds=60)
    world.ray.reachable = True
    assert world.step() == []
    assert world.ray.launches == ["a-a1"]


def test_a_lost_reply_does_not_launch_twice(world):
    world.submit("a")
    world.ray.lose_reply = True
    with pytest.raises(UnreachableError):
        world.step()
    assert world.step() == []
    assert world.ray.launches == ["a-a1"]


@pytest.mark.parametrize("crash_at", range(1, 8))
def test_a_controller_killed_at_any_write_launches_each_attempt_once(world, crash_at):
    run = world.submit("a")
    world.store.crash_at = crash_at
    ended = False
    for _ in range(12):
        try:
            world.step(seconds=2)
        except Crash:
            world.store.crash_at = None
        if not ended and "a-a1" in world.ray.jobs:
            world.ray.end("a-a1")
            ended = True
        if "a-a2" in world.ray.jobs and world.job("a").state is State.RUNNING:
            world.store.runs[run]["state"] = State.FINISHED
            world.ray.end("a-a2", "SUCCEEDED")
    assert world.ray.launches == ["a-a1", "a-a2"]
    assert world.job("a").state is State.FINISHED


def test_stop_of_a_queued_job(world):
    run = world.submit("a")
    world.store.runs[run]["tags"][TAG_STOP] = "1"
    world.step()
    assert world.job("a").state is State.KILLED
    assert world.ray.launches == []


def test_stop_of_a_running_job_waits_for_the_driver(world):
    run = world.submit("a")
    world.step()
    world.store.runs[run]["tags"][TAG_STOP] = "1"
    assert world.step() == ["a: asked to stop"]
    assert world.step() == []
    assert world.ray.stops == ["a-a1"]
    world.store.driver_says(run, 1, {"outcome": "stopped", "reason": "stopped at step 7"})
    world.ray.end("a-a1", "STOPPED")
    world.step()
    assert (world.job("a").state, world.job("a").reason) == (State.KILLED, "stopped at step 7")


def test_time_limit(world):
    run = world.submit("a", time_limit_s=60)
    world.step()
    assert world.step(seconds=59) == []
    assert world.step(seconds=2) == ["a: asked to stop"]
    world.store.driver_says(run, 1, {"outcome": "stopped", "reason": "stopped on request"})
    world.ray.end("a-a1", "STOPPED")
    world.step()
    assert world.job("a").state is State.KILLED
    assert world.job("a").reason == "time limit of 60 s reached"


def test_jobs_wait_for_room_and_say_so(world):
    world.submit("a", num_workers=3)
    world.now_ms += 1
    world.submit("b", num_workers=2)
    world.step()
    assert world.job("b").reason == "waiting: needs 2 CPUs, 1 CPUs free"
    world.store.runs["run-1"]["state"] = State.FINISHED
    assert world.step() == ["b: launched attempt 1"]


def test_a_long_queue_is_told_why_it_waits_a_few_jobs_a_step():
    world = World(cpus=1)
    for i in range(50):
        world.submit(f"j{i:02}")
    told = []
    for _ in range(4):
        world.step()
        told.append(sum(bool(world.job(f"j{i:02}").reason) for i in range(50)))
    assert told == [20, 40, 49, 49]
    assert world.ray.launches == ["j00-a1"]


def test_after_a_failed_job_is_refused(world):
    run = world.submit("a")
    world.submit("b", after=("a",))
    world.store.runs[run]["state"] = State.FAILED
    world.step()
    assert world.job("b").state is State.KILLED
    assert "which is FAILED" in world.job("b").reason


def test_the_younger_of_two_equal_names_is_closed(world):
    world.submit("a")
    world.now_ms += 10
    world.submit("a")
    world.step()
    assert world.store.runs["run-1"]["state"] is State.RUNNING
    assert world.store.runs["run-2"]["state"] is State.KILLED
    assert world.ray.launches == ["a-a1"]


def test_a_submit_cut_off_between_its_two_requests_is_queued_later(world):
    world.store.add(make_spec("a"), submitted_ms=world.now_ms, state=State.RUNNING)
    assert world.step(seconds=1) == []  # its submit may still be at work
    assert world.step(seconds=60) == ["a: its submit was cut off; queued"]
    assert world.step() == ["a: launched attempt 1"]


def test_a_job_that_cannot_be_read_does_not_stop_the_others(world):
    run = world.submit("bad")
    tags = world.store.runs[run]["tags"]
    tags[TAG_SPEC] = json.dumps(json.loads(tags[TAG_SPEC]) | {"version": 99})
    world.submit("good")
    world.step()
    assert world.job("bad").state is State.FAILED
    assert world.job("good").state is State.RUNNING


def test_progress_earns_new_retries(world):
    run = world.submit("a", max_retries=1)
    for epoch in range(1, 6):
        world.step(seconds=400)
        world.store.runs[run]["metrics"] = {"progress/epoch": epoch}
        world.ray.end(f"a-a{epoch}")
        world.step()
    assert world.job("a").state is State.SCHEDULED
    for _ in range(2):  # and without progress they end
        world.step(seconds=400)
        world.ray.end(world.ray.launches[-1])
        world.step()
    assert world.job("a").state is State.FAILED


def test_a_signal_that_nobody_asked_for_is_retried(world):
    run = world.submit("a")
    world.step()
    world.store.driver_says(run, 1, {"outcome": "stopped", "reason": "stopped at step 7"})
    world.ray.end("a-a1", "SUCCEEDED")
    world.step()
    assert world.job("a").state is State.SCHEDULED
    assert "the system ended the driver" in world.job("a").reason


def test_trouble_with_one_job_leaves_the_others_to_be_moved(world):
    run = world.submit("bad")
    world.submit("good", num_workers=4)
    world.step()
    world.ray.end("bad-a1")
    world.store.runs[run]["tags"]["gcpctl.not_before_ms"] = ""
    get = world.store.get

    def broken(run_id):
        if run_id == run:
            raise ValueError("an answer nobody foresaw")
        return get(run_id)

    world.store.get = broken
    events = world.step()
    assert any("left as it is, ValueError" in event for event in events)
    assert world.job("good").state is State.SCHEDULED  # "bad" may hold a CPU still
    assert world.job("good").reason == "waiting: needs 4 CPUs, 3 CPUs free"


def test_a_stop_during_a_launch_that_never_arrived(world):
    run = world.submit("a")
    world.step()
    world.ray.lose_head()
    world.store.runs[run]["tags"][TAG_STOP] = "1"
    world.step()
    assert world.job("a").state is State.KILLED
    assert world.ray.launches == ["a-a1"]


def test_an_old_list_of_jobs_judges_no_newer_attempt(world):
    run = world.submit("a")
    world.step()
    stale = world.store.active()
    world.ray.end("a-a1")
    world.step()
    world.step(seconds=2)  # attempt 2 runs
    world.store.active = lambda: stale
    world.step()
    assert world.store.runs[run]["state"] is State.RUNNING
    assert world.ray.launches == ["a-a1", "a-a2"]


def submit_elastic(world: World, name: str, *counts: int) -> str:
    resources = Resources(min_workers=counts[0], num_workers=counts[-1])
    spec = make_spec(name).model_copy(update={"resources": resources, "worker_counts": counts})
    return world.store.add(spec, submitted_ms=world.now_ms)


def trains_on(world: World, run: str, *, eta_s: float = 1000.0) -> None:
    said = json.dumps({"phase": "train", "eta_s": eta_s})
    world.store.runs[run]["tags"][TAG_PROGRESS] = said


def saves_and_ends(world: World, run: str, name: str, attempt: int) -> None:
    world.store.driver_says(run, attempt, {"outcome": "stopped", "reason": "saved"})
    world.ray.end(f"{name}-a{attempt}", "SUCCEEDED")


def test_an_elastic_job_grows_when_room_appears_and_loses_no_retry():
    world = World(cpus=3)
    before = world.submit("before", num_workers=2)
    run = submit_elastic(world, "e", 1, 2)
    world.step()
    assert (world.job("e").num_workers, world.job("e").gang.total_cpus) == (1, 1)
    trains_on(world, run)
    assert world.step(seconds=100) == []
    world.store.runs[before]["state"] = State.FINISHED
    assert world.step() == ["e: there is room for 2 workers; asked to save and end"]
    assert (world.ray.stops, world.job("e").phase) == (["e-a1"], "resizing")
    assert world.step() == []  # it is told once
    saves_and_ends(world, run, "e", 1)
    assert world.step() == ["e: attempt 1 ended for one with more workers than 1"]
    assert world.step() == ["e: launched attempt 2"]
    job = world.job("e")
    assert (job.num_workers, job.retries_used, job.attempt_launch_ms) == (2, 0, world.now_ms)
    assert job.verdict(1)["class"] == ""


def test_nobody_grows_while_another_waits_for_room():
    world = World(cpus=4)
    one, two = world.submit("a-one"), world.submit("a-two", num_workers=2)
    run = submit_elastic(world, "e", 1, 2)
    world.step()
    trains_on(world, run)
    world.submit("wide", num_workers=2)
    world.store.runs[one]["state"] = State.FINISHED
    assert world.step(seconds=100) == []
    assert world.job("wide").reason == "waiting: needs 2 CPUs, 1 CPUs free"
    world.store.runs[two]["state"] = State.FINISHED
    assert world.step() == ["wide: launched attempt 1"]
    assert world.step() == ["e: there is room for 2 workers; asked to save and end"]


def test_a_lost_node_is_followed_by_a_smaller_gang():
    world = World(cpus=4)
    submit_elastic(world, "e", 1, 2, 4)
    world.step()
    assert world.job("e").num_workers == 4
    world.ray.cpus = 3
    world.ray.end("e-a1")
    world.step()
    world.step(seconds=2)
    assert world.job("e").num_workers == 2
    assert world.ray.launches == ["e-a1", "e-a2"]


def test_a_stop_wins_over_a_resize():
    world = World(cpus=2)
    before = world.submit("before")
    run = submit_elastic(world, "e", 1, 2)
    world.step()
    trains_on(world, run)
    world.store.runs[before]["state"] = State.FINISHED
    world.step(seconds=100)
    world.store.runs[run]["tags"][TAG_STOP] = "by somebody"
    saves_and_ends(world, run, "e", 1)
    world.step()
    assert (world.job("e").state, world.job("e").phase) == (State.KILLED, "stopped")


@pytest.mark.parametrize("crash_at", range(1, 8))
def test_a_controller_killed_while_resizing_launches_each_attempt_once(crash_at):
    world = World(cpus=2)
    before = world.submit("before")
    run = submit_elastic(world, "e", 1, 2)
    world.step()
    trains_on(world, run)
    world.store.runs[before]["state"] = State.FINISHED
    world.store.writes, world.store.crash_at = 0, crash_at
    for _ in range(8):
        try:
            world.step(seconds=100)
        except Crash:
            world.store.crash_at = None
        if "e-a1" in world.ray.stops and world.ray.jobs["e-a1"].status == "RUNNING":
            saves_and_ends(world, run, "e", 1)
    assert world.ray.launches == ["before-a1", "e-a1", "e-a2"]
    assert (world.job("e").num_workers, world.job("e").retries_used) == (2, 0)
