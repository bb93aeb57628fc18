"""The admission policy: priority, order, gangs, reasons."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.controller.policy import Candidate, Capacity, Refuse, Start, Wait, admit
from orchestrator.jobs.job import queue_key
from orchestrator.jobs.spec import Resources
from orchestrator.jobs.states import State


def job(name: str, workers: int = 1, *, priority: int = 0, at: int = 0, **more) -> Candidate:
    return Candidate(name, queue_key(priority, at), Resources(num_workers=workers), **more)


def started(decisions) -> list[str]:
    return [d.job_id for d in decisions if isinstance(d, Start)]


def test_higher_priority_first_then_submission_order():
    queue = [job("late", at=2), job("early", at=1), job("urgent", at=3, priority=5)]
    assert started(admit(queue, [], Capacity(2, 0), 0)) == ["urgent", "early"]


def test_gang_starts_whole_or_not_at_all():
    decisions = admit([job("big", 3)], [Resources(num_workers=2)], Capacity(4, 0), 0)
    assert decisions == [Wait("big", "waiting: needs 3 CPUs, 2 CPUs free")]


def test_a_large_job_is_not_starved_by_small_ones_behind_it():
    queue = [job("big", 4, at=1), job("small", 1, at=2)]
    decisions = admit(queue, [Resources(num_workers=2)], Capacity(4, 0), 0)
    assert started(decisions) == []
    assert decisions[1] == Wait("small", "waiting: behind big in the queue")


def test_a_job_larger_than_the_cluster_is_named_and_blocks_nobody():
    decisions = admit([job("huge", 9, at=1), job("small", at=2)], [], Capacity(4, 0), 0)
    assert "in all now" in decisions[0].reason
    assert started(decisions) == ["small"]


def test_backoff_blocks_nobody():
    queue = [job("failed", at=1, not_before_ms=5_000), job("next", at=2)]
    decisions = admit(queue, [], Capacity(1, 0), 1_000)
    assert decisions[0] == Wait("failed", "waiting: next attempt in 4 s")
    assert started(decisions) == ["next"]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State.FINISHED, Start),
        (State.RUNNING, Wait),
        (State.SCHEDULED, Wait),
        (State.FAILED, Refuse),
        (State.KILLED, Refuse),
        (None, Refuse),
    ],
)
def test_after(state, expected):
    (decision,) = admit([job("b", after={"a": state})], [], Capacity(1, 0), 0)
    assert isinstance(decision, expected)


def test_gpus_are_counted():
    wants = Candidate("g", "0", Resources(num_workers=2, gpus_per_worker=1))
    assert started(admit([wants], [], Capacity(8, 1), 0)) == []
    assert started(admit([wants], [], Capacity(8, 2), 0)) == ["g"]


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(-3, 3), st.integers(0, 9)), min_size=1, max_size=12
    ),
    st.integers(0, 12),
)
def test_never_more_than_the_cluster_holds_and_one_decision_each(jobs, cpus):
    queue = [job(f"j{i}", w, priority=p, at=a) for i, (w, p, a) in enumerate(jobs)]
    decisions = admit(queue, [], Capacity(cpus, 0), 0)
    assert sorted(d.job_id for d in decisions) == sorted(c.job_id for c in queue)
    width = {c.job_id: c.resources.total_cpus for c in queue}
    assert sum(width[name] for name in started(decisions)) <= cpus
