"""Jobs that share a driver, step by step, against stores in memory."""

import json

import pytest

from orchestrator.jobs.job import TAG_ATTEMPT, TAG_BEGUN, TAG_HOST, TAG_PROGRESS, TAG_STOP
from orchestrator.jobs.spec import Resources
from orchestrator.jobs.states import State
from tests.fakes import Crash, make_spec
from tests.unit.orchestrator.controller.world import World


@pytest.fixture
def world() -> World:
    """One CPU, and `a` running on it."""
    world = World(cpus=1)
    submit(world, "a")
    world.step()
    world.step()
    return world


def submit(world: World, name: str, **fields) -> str:
    return world.submit(name, **({"pack": "cells", "group": "study"} | fields))


def says(world: World, name: str, kind: str, **more) -> None:
    """Write the driver's word on a job; the driver itself lives on."""
    job = world.job(name)
    world.store.driver_says(job.run_id, job.attempt, {"outcome": kind, "reason": kind} | more)


def test_queued_jobs_are_handed_to_the_driver_that_lives(world):
    for name in "bcd":
        submit(world, name)
    assert world.step() == [
        "b: handed to a-a1 as attempt 1",
        "c: handed to a-a1 as attempt 1",
    ]
    job = world.job("b")
    assert (job.state, job.submission_id, job.has_begun) == (State.RUNNING, "a-a1", False)
    assert job.phase == "next in its process"
    assert world.job("d").reason == "waiting: its turn in study"
    assert world.step() == []
    world.finish("a")
    world.begin("b")
    assert world.step() == ["d: handed to a-a1 as attempt 1"]
    assert world.ray.launches == ["a-a1"]


def test_a_driver_is_asked_about_once_in_a_step_and_holds_its_room_once(world):
    submit(world, "b")
    submit(world, "c")
    world.step()
    world.ray.cpus = 2
    world.ray.gets.clear()
    submit(world, "d", pack="")
    assert world.step() == ["d: launched attempt 1"]
    assert world.ray.gets == ["a-a1"]


def test_a_driver_holds_its_room_when_its_first_job_is_done(world):
    submit(world, "b")
    world.step()
    world.finish("a")
    world.begin("b")
    submit(world, "other", pack="", group="")
    world.step()
    assert world.job("other").reason == "waiting: needs 1 CPUs, 0 CPUs free"
    world.finish("b")
    assert world.step() == ["other: launched attempt 1"]


def test_of_a_dead_driver_the_begun_job_is_judged_and_the_others_lose_nothing(world):
    submit(world, "b")
    submit(world, "c")
    world.step()
    world.finish("a")
    world.begin("b")
    world.ray.end("a-a1")
    events = world.step()
    assert events == [
        "b: attempt 1 failed: exit 137; queued again",
        "c: taken back from a-a1: its process ended before its turn",
    ]
    assert (world.job("b").retries_used, world.job("c").retries_used) == (1, 0)
    assert world.archived == [("b", 1)]
    assert world.step(seconds=0.1) == ["c: launched attempt 2"]  # never the same number again
    job = world.job("c")
    assert (job.submission_id, job.has_begun, job.reason) == ("c-a2", True, "")
    world.step()
    assert world.job("b").submission_id == "c-a2"
    assert world.job("b").reason == "attempt 2, after: attempt 1 failed: exit 137"


def test_a_lost_head_gives_back_what_was_handed_over(world):
    submit(world, "b")
    world.step()
    world.ray.lose_head()
    world.step()
    assert world.job("b").state is State.SCHEDULED
    assert world.job("b").retries_used == 0


@pytest.mark.parametrize(
    ("kind", "state"), [("user", State.FAILED), ("infrastructure", State.SCHEDULED)]
)
def test_a_failed_job_is_closed_while_its_driver_goes_on(world, kind, state):
    submit(world, "b")
    world.step()
    says(world, "a", "failed", **{"class": kind})
    world.begin("b")
    world.step()
    assert (world.job("a").state, world.job("b").state) == (state, State.RUNNING)
    assert world.archived == []  # its driver has stored the log
    assert world.ray.stops == []


def test_a_job_being_finished_by_its_driver_is_left_alone(world):
    says(world, "a", "finished")
    assert world.step() == []
    assert world.job("a").state is State.RUNNING


def test_a_stop_ends_one_job_and_not_its_driver(world):
    submit(world, "b")
    world.step()
    world.tags("a")[TAG_STOP] = str(world.now_ms)
    assert world.step() == ["a: asked to stop"]
    assert world.step(seconds=30) == []
    assert world.ray.stops == []
    says(world, "a", "stopped")
    world.begin("b")
    world.step()
    assert (world.job("a").state, world.job("b").state) == (State.KILLED, State.RUNNING)


def test_the_driver_of_a_job_that_hears_nothing_is_ended(world):
    submit(world, "b")
    world.step()
    world.tags("a")[TAG_STOP] = str(world.now_ms)
    world.step()
    submit(world, "c")
    assert world.step(seconds=90) == ["a: does not stop; its process is ended"]
    assert world.ray.stops == ["a-a1"]
    world.step()
    assert world.ray.stops == ["a-a1"]  # it is told once
    assert world.job("c").state is State.SCHEDULED  # nothing more is handed to it
    world.ray.end("a-a1", "STOPPED")
    world.step()
    assert world.job("a").state is State.KILLED
    assert (world.job("b").state, world.job("b").retries_used) == (State.SCHEDULED, 0)


def test_a_job_stopped_before_its_turn_never_runs(world):
    submit(world, "b")
    world.step()
    world.tags("b")[TAG_STOP] = str(world.now_ms)
    assert world.step() == ["b: stopped while queued"]
    assert world.job("b").state is State.KILLED


def test_a_job_that_begins_just_before_it_is_taken_back_is_kept(world):
    submit(world, "b")
    world.step()
    world.tags("b")[TAG_STOP] = str(world.now_ms)
    stale = world.store.active()
    world.begin("b")
    world.store.active = lambda: stale
    assert world.step() == ["b: asked to stop"]
    assert world.job("b").state is State.RUNNING


def test_the_time_limit_counts_from_the_beginning_and_not_from_the_handing_over(world):
    submit(world, "b", time_limit_s=60)
    world.step()
    assert world.step(seconds=1000) == []
    world.finish("a")
    world.begin("b")
    assert world.step(seconds=1000) == []
    assert world.step(seconds=59) == []
    assert world.step(seconds=2) == ["b: asked to stop"]
    assert world.tags("b")[TAG_STOP] == "time limit of 60 s reached"
    assert world.ray.stops == []


def test_an_evaluation_runs_behind_its_training_in_one_driver(world):
    submit(world, "e", kind="eval", after=("a",))
    world.ray.cpus = 8
    assert world.step() == ["e: handed to a-a1 as attempt 1"]
    assert world.step() == []
    world.finish("a")
    world.begin("e")
    assert world.step() == []


def test_an_evaluation_is_taken_back_when_its_training_fails(world):
    submit(world, "e", kind="eval", after=("a",))
    submit(world, "b")
    world.step()
    says(world, "a", "failed", **{"class": "infrastructure"})
    world.begin("b")
    events = world.step(seconds=0.1)
    assert events[-1] == "e: taken back from a-a1: waiting: for a to finish"
    assert world.job("e").state is State.SCHEDULED
    says(world, "b", "failed", **{"class": "user"})
    world.ray.end("a-a1", "SUCCEEDED")
    for _ in range(3):
        world.step(seconds=2)
    assert world.job("a").submission_id == "a-a2"
    assert world.job("e").submission_id == "a-a2"


def test_an_evaluation_is_taken_back_when_its_training_runs_elsewhere(world):
    submit(world, "e", kind="eval", after=("a",))
    submit(world, "b")
    world.step()
    world.begin("b")
    world.tags("a")[TAG_ATTEMPT] = "2"
    world.ray.submit("a-a2", "exec it", {})
    assert world.step() == ["e: taken back from a-a1: waiting: for a to finish"]


def test_an_evaluation_of_a_training_that_failed_for_good_is_refused(world):
    submit(world, "e", kind="eval", after=("a",))
    submit(world, "b")
    world.step()
    says(world, "a", "failed", **{"class": "user"})
    world.begin("b")
    world.step()
    world.step()
    assert (world.job("e").state, world.job("e").phase) == (State.KILLED, "refused")


def test_a_driver_that_is_busy_for_long_is_handed_nothing(world):
    world.tags("a")[TAG_PROGRESS] = json.dumps({"eta_s": 100.0})
    submit(world, "e", kind="eval", after=("a",))
    submit(world, "b")
    world.step()
    assert world.job("e").reason == "waiting: for a to finish"
    assert world.job("b").reason == "waiting: its turn in study"
    world.tags("a")[TAG_PROGRESS] = json.dumps({"eta_s": 30.0})
    assert len(world.step()) == 2


def test_what_was_handed_to_a_driver_that_turns_out_busy_is_taken_back(world):
    submit(world, "e", kind="eval", after=("a",))
    submit(world, "b")
    world.step()
    world.tags("a")[TAG_PROGRESS] = json.dumps({"eta_s": 200.0})
    assert world.step() == []  # an estimate is rough at first
    world.tags("a")[TAG_PROGRESS] = json.dumps({"eta_s": 4000.0})
    assert world.step() == ["b: taken back from a-a1: waiting: its turn would come late"]
    assert world.job("e").submission_id == "a-a1"  # it waits for `a` anyway
    assert world.step() == []
    world.ray.cpus = 2
    assert world.step() == ["b: launched attempt 2"]
    assert world.job("b").retries_used == 0


def test_a_job_of_several_workers_shares_with_nobody():
    world = World(cpus=2)
    wide = make_spec("w", pack="cells", num_workers=2)
    elastic = make_spec("e", pack="cells").model_copy(
        update={"resources": Resources(min_workers=1, num_workers=2), "worker_counts": (1, 2)}
    )
    world.store.add(wide, submitted_ms=1)
    world.store.add(elastic, submitted_ms=2)
    for _ in range(3):
        world.step()
    assert (world.ray.launches, world.job("e").state) == (["w-a1"], State.SCHEDULED)


def test_a_limit_counts_drivers_of_the_study():
    world = World(cpus=8)
    for name in "abc":
        submit(world, name, pack="", max_parallel=2)
    submit(world, "other", group="", pack="")
    for _ in range(3):
        world.step()
    assert world.ray.launches == ["a-a1", "b-a1", "other-a1"]
    assert world.job("c").reason == "waiting: no more than 2 of study at once"
    world.finish("a")
    world.step()
    assert world.ray.launches[-1] == "c-a1"


@pytest.mark.parametrize("crash_at", [1, 2])
def test_a_controller_killed_while_it_takes_a_job_back_costs_no_retry(world, crash_at):
    submit(world, "b")
    world.step()
    world.finish("a")
    world.ray.end("a-a1")
    world.store.crash_at = world.store.writes + crash_at
    with pytest.raises(Crash):
        world.step()
    world.store.crash_at = None
    world.step()
    world.step()
    assert (world.ray.launches[-1], world.job("b").retries_used) == ("b-a2", 0)


@pytest.mark.parametrize("crash_at", range(1, 12))
def test_a_controller_killed_at_any_write_runs_each_job_once(crash_at):
    world = World(cpus=1)
    for name in "ab":
        submit(world, name)
    world.store.crash_at = crash_at
    ran: list[tuple[str, int]] = []
    for _ in range(20):
        try:
            world.step(seconds=2)
        except Crash:
            world.store.crash_at = None
        for name in "ab":  # the driver, one job at a time
            job = world.job(name)
            if job.state is State.RUNNING and job.submission_id in world.ray.jobs:
                if job.tags.get(TAG_HOST) and not job.has_begun:
                    world.tags(name)[TAG_BEGUN] = str(job.attempt)
                    ran.append((name, job.attempt))
                elif world.now_ms > 108_000:
                    world.finish(name)
                break
    assert [world.job(name).state for name in "ab"] == [State.FINISHED] * 2
    assert world.ray.launches == ["a-a1"]
    assert [name for name, _ in ran] == ["b"]
