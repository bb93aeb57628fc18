"""The admission policy: priority, order, gangs, reasons."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.controller.candidates import (
    Candidate,
    Capacity,
    Elastic,
    Refuse,
    Start,
    Wait,
)
from orchestrator.controller.policy import GROW_AFTER_S, GROW_BEFORE_END_S, admit, grow
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
    assert decisions == [Wait("big", "waiting: needs 3 CPUs, 2 CPUs free", for_room=True)]


def test_a_large_job_is_not_starved_by_small_ones_behind_it():
    queue = [job("big", 4, at=1), job("small", 1, at=2)]
    decisions = admit(queue, [Resources(num_workers=2)], Capacity(4, 0), 0)
    assert started(decisions) == []
    assert decisions[1] == Wait("small", "waiting: behind big in the queue", for_room=True)


def test_a_job_larger_than_the_cluster_is_named_and_blocks_nobody():
    decisions = admit([job("huge", 9, at=1), job("small", at=2)], [], Capacity(4, 0), 0)
    assert "in all now" in decisions[0].reason
    assert started(decisions) == ["small"]


def test_backoff_blocks_nobody():
    queue = [job("failed", at=1, not_before_ms=5_000), job("next", at=2)]
    decisions = admit(queue, [], Capacity(1, 0), 1_000)
    assert decisions[0] == Wait("failed", "waiting: next attempt in 4 s", for_room=True)
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


def elastic(name: str, *counts: int, at: int = 0) -> Candidate:
    resources = Resources(min_workers=counts[0], num_workers=counts[-1])
    return Candidate(name, queue_key(0, at), resources, worker_counts=counts)


@pytest.mark.parametrize(("free", "workers"), [(2, 2), (3, 2), (4, 4), (7, 4), (8, 8), (100, 8)])
def test_an_elastic_job_starts_with_the_most_that_fit_and_divide_the_batch(free, workers):
    queue = [elastic("e", 2, 4, 8)]
    assert admit(queue, [], Capacity(free, 0), 0) == [Start("e", workers)]


def test_an_elastic_job_never_starts_with_fewer_than_its_least():
    running = [Resources(num_workers=7)]
    (decision,) = admit([elastic("e", 2, 4, 8)], running, Capacity(8, 0), 0)
    assert decision == Wait("e", "waiting: needs 2 CPUs, 1 CPUs free", for_room=True)


def test_what_an_elastic_job_takes_is_gone_for_those_behind_it():
    queue = [elastic("e", 1, 2, at=1), job("rest", 2, at=2), job("late", 1, at=3)]
    decisions = admit(queue, [], Capacity(4, 0), 0)
    assert decisions[:2] == [Start("e", 2), Start("rest", 2)]
    assert isinstance(decisions[2], Wait)


def running(name: str, workers: int, *counts: int, at: int = 0, for_s=1e3, left_s=1e3) -> Elastic:
    return Elastic(name, elastic(name, *counts, at=at), workers, for_s, left_s)


def test_a_running_job_grows_into_what_is_free():
    jobs = [running("e", 2, 2, 4, 8)]
    own = Resources(num_workers=2)
    assert grow(jobs, [own], Capacity(3, 0)) == {}
    assert grow(jobs, [own], Capacity(5, 0)) == {"e": 4}
    assert grow(jobs, [own, Resources(num_workers=6)], Capacity(9, 0)) == {}
    assert grow(jobs, [own], Capacity(64, 0)) == {"e": 8}


def test_the_first_in_the_queue_grows_first():
    jobs = [running("b", 1, 1, 2, at=2), running("a", 1, 1, 2, at=1)]
    assert grow(jobs, [Resources()] * 2, Capacity(3, 0)) == {"a": 2}


@pytest.mark.parametrize(
    "times",
    [
        {"for_s": GROW_AFTER_S - 1},
        {"left_s": GROW_BEFORE_END_S - 1},
        {"left_s": None},
    ],
)
def test_growing_is_left_out_where_a_restart_would_not_pay(times):
    assert grow([running("e", 1, 1, 2, **times)], [Resources()], Capacity(9, 0)) == {}


@given(
    st.lists(
        st.tuples(st.sets(st.integers(1, 9), min_size=1), st.integers(0, 9)),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 20),
)
def test_gangs_are_allowed_counts_and_fit(jobs, cpus):
    queue = [elastic(f"j{i}", *sorted(counts), at=at) for i, (counts, at) in enumerate(jobs)]
    counts = {job.job_id: job.worker_counts for job in queue}
    starts = [d for d in admit(queue, [], Capacity(cpus, 0), 0) if isinstance(d, Start)]
    assert all(start.num_workers in counts[start.job_id] for start in starts)
    taken = [Resources(num_workers=start.num_workers) for start in starts]
    assert sum(gang.total_cpus for gang in taken) <= cpus
    able = [Elastic(s.job_id, c, s.num_workers, 1e3, 1e3) for s in starts for c in queue
            if c.job_id == s.job_id]  # fmt: skip
    grown = grow(able, taken, Capacity(cpus, 0))
    after = [grown.get(s.job_id, s.num_workers) for s in starts]
    assert sum(after) <= cpus
    assert all(grown[s.job_id] > s.num_workers for s in starts if s.job_id in grown)
