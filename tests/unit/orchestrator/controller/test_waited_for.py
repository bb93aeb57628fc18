"""Looking up what jobs wait for costs a few requests a step, however many wait."""

import pytest

from orchestrator.controller import waited_for
from orchestrator.controller.waited_for import WaitedFor
from orchestrator.jobs.states import State
from tests.unit.orchestrator.controller.world import World


@pytest.fixture
def world() -> World:
    """No room, so that whatever is queued stays."""
    return World(cpus=0)


def cost_of_a_step(world: World) -> int:
    """Requests of a step, once all that wait have been told why."""
    writes = -1
    while writes != world.store.writes:
        writes, before = world.store.writes, world.store.requests
        world.step()
    return world.store.requests - before


def submit_pairs(world: World, count: int, *, finished: bool = False) -> None:
    """Queue jobs that wait for one other each."""
    for i in range(count):
        world.submit(f"t{i}")
        if finished:
            world.finish(f"t{i}")
        world.submit(f"e{i}", after=(f"t{i}",))


@pytest.mark.parametrize("count", [20, 120])
def test_jobs_at_hand_are_not_asked_for(world, count):
    submit_pairs(world, count)
    assert cost_of_a_step(world) == 1  # what is active


@pytest.mark.parametrize("count", [20, 120])
def test_a_finished_job_is_asked_for_once(world, count):
    submit_pairs(world, count, finished=True)
    assert cost_of_a_step(world) == 1


@pytest.mark.parametrize(("count", "more"), [(20, 1), (120, 3)])
def test_jobs_far_back_in_the_queue_are_asked_for_together(world, count, more, monkeypatch):
    monkeypatch.setattr(waited_for, "_MANY_RUNS", 50)
    submit_pairs(world, count)
    read = world.store.active
    world.store.active = lambda: [job for job in read() if job.job_id.startswith("e")]
    assert cost_of_a_step(world) == 1 + 1 + more  # what is active, experiments, 50 runs at a time


def test_a_cold_start_does_not_ask_for_everything_at_once(world):
    submit_pairs(world, 100, finished=True)
    before = world.store.requests
    world.step()
    assert world.store.requests - before < 60
    assert all(world.job(f"e{i}").state is State.SCHEDULED for i in range(100))


def test_states_are_told_as_they_are(world):
    world.submit("done")
    world.finish("done")
    failed = world.submit("failed")
    world.store.runs[failed]["state"] = State.FAILED
    world.submit("queued")
    world.submit("e", after=("done", "failed", "queued", "nobody"))
    store, lookup = world.store, WaitedFor()
    expected = {
        "done": State.FINISHED,
        "failed": State.FAILED,
        "queued": State.SCHEDULED,
        "nobody": None,
    }
    assert lookup.states(store, [world.job("e")], {}) == expected
    store.runs[failed]["state"] = State.SCHEDULED  # a person may ask for that
    del store.runs[world.job("queued").run_id]
    changed = expected | {"failed": State.SCHEDULED, "queued": None}
    assert lookup.states(store, [world.job("e")], {}) == changed
    at_hand = {"failed": world.job("failed")}
    assert lookup.states(store, [world.job("e")], at_hand)["failed"] is State.SCHEDULED
