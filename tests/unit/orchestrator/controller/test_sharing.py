"""The admission policy where jobs share drivers, and where a study has a limit."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.controller.candidates import (
    Candidate,
    Capacity,
    Host,
    Join,
    Refuse,
    Start,
    Wait,
)
from orchestrator.controller.policy import admit
from orchestrator.controller.sharing import MOST_AHEAD
from orchestrator.jobs.job import queue_key
from orchestrator.jobs.spec import Resources
from orchestrator.jobs.states import State

ONE = Resources()


def cell(name: str, at: int = 0, *, pack: str = "cells", **more) -> Candidate:
    return Candidate(name, queue_key(0, at), ONE, pack=pack, **more)


def host(name: str, *jobs: str, pack: str = "cells", ahead: int = 0, gang=ONE) -> Host:
    return Host(name, pack, gang.with_workers(gang.num_workers), frozenset(jobs), ahead)


def decide(queue, hosts=(), *, cpus: float = 1, **more):
    held = [each.gang for each in hosts]
    return {d.job_id: d for d in admit(queue, held, Capacity(cpus, 0), 0, hosts=hosts, **more)}


def test_room_comes_before_a_shared_driver():
    assert decide([cell("b")], [host("h", "a")], cpus=2) == {"b": Start("b", 1)}
    assert decide([cell("b")], [host("h", "a")], cpus=1) == {"b": Join("b", "h")}


def test_few_jobs_are_handed_ahead_and_the_rest_wait_their_turn():
    queue = [cell(f"j{i}", i, group="study") for i in range(5)]
    made = decide(queue, [host("h", "a")])
    assert [made[f"j{i}"] for i in range(MOST_AHEAD)] == [Join("j0", "h"), Join("j1", "h")]
    # One text for all of them: it need not be written again with each job that starts.
    assert {made[f"j{i}"].reason for i in (2, 3, 4)} == {"waiting: its turn in study"}


def test_the_driver_with_the_least_to_do_takes_the_next():
    hosts = [host("h1", "a", ahead=1), host("h2", "b")]
    made = decide([cell("j0", 0), cell("j1", 1), cell("j2", 2), cell("j3", 3)], hosts, cpus=2)
    taken = [made[f"j{i}"] for i in range(3)]
    assert taken == [Join("j0", "h2"), Join("j1", "h1"), Join("j2", "h2")]
    assert isinstance(made["j3"], Wait)


def test_another_pack_or_other_resources_do_not_join():
    two_cpus = Resources(cpus_per_worker=2)
    assert isinstance(decide([cell("b", pack="other")], [host("h", "a")])["b"], Wait)
    assert isinstance(decide([cell("b", pack="")], [host("h", "a", pack="")])["b"], Wait)
    wide = replace(cell("b"), resources=two_cpus)
    assert isinstance(decide([wide], [host("h", "a")], cpus=2)["b"], Wait)
    assert decide([wide], [host("h", "a", gang=two_cpus)], cpus=2) == {"b": Join("b", "h")}


def test_a_busy_driver_takes_nothing():
    after_a = cell("eval", 1, after={"a": State.RUNNING})
    busy = replace(host("h", "a"), busy=True)
    made = decide([cell("b", 2, group="s"), after_a], [busy])
    assert made["eval"] == Wait("eval", "waiting: for a to finish")
    assert made["b"] == Wait("b", "waiting: its turn in s", for_room=True)


def test_drivers_drain_while_a_larger_job_waits_for_room():
    large = Candidate("large", queue_key(0, 0), Resources(num_workers=2))
    after_a = cell("eval", 2, after={"a": State.RUNNING})
    made = decide([large, cell("b", 1), after_a], [host("h", "a")], cpus=2)
    assert made["b"] == Wait("b", "waiting: behind large in the queue", for_room=True)
    assert made["eval"] == Wait("eval", "waiting: for a to finish")


def test_what_waits_for_a_job_of_a_driver_runs_there_behind_it():
    after_a = cell("eval", 1, after={"a": State.RUNNING})
    assert decide([after_a], [host("g"), host("h", "a")], cpus=9) == {"eval": Join("eval", "h")}
    both = cell("eval", 1, after={"a": State.RUNNING, "b": State.RUNNING})
    assert isinstance(decide([both], [host("g", "b"), host("h", "a")], cpus=9)["eval"], Wait)
    assert decide([both], [host("h", "a", "b")], cpus=9) == {"eval": Join("eval", "h")}


def test_a_pause_after_a_failure_is_kept_in_a_shared_driver_too():
    after_a = cell("eval", 1, after={"a": State.RUNNING}, not_before_ms=5)
    assert isinstance(decide([after_a], [host("h", "a")])["eval"], Wait)
    assert isinstance(decide([replace(after_a, after={})], [host("h", "a")])["eval"], Wait)


def test_a_job_handed_over_and_what_waits_for_it_go_together():
    train, then = cell("t", 1), cell("e", 2, after={"t": State.SCHEDULED})
    assert decide([then, train], [host("h", "a")]) == {"t": Join("t", "h"), "e": Join("e", "h")}


def test_what_waits_for_a_failed_job_is_refused_though_its_driver_lives():
    failed = cell("e", 2, after={"t": State.FAILED, "a": State.RUNNING})
    assert isinstance(decide([failed], [host("h", "a")])["e"], Refuse)


def test_a_study_at_its_limit_holds_nobody_back():
    study = [cell(f"s{i}", i, pack="", group="s", max_parallel=2) for i in range(4)]
    other = cell("other", 9, pack="")
    made = decide([*study, other], cpus=9, drivers={"s": {"x-a1"}})
    assert [type(made[f"s{i}"]) for i in range(4)] == [Start, Wait, Wait, Wait]
    assert made["s1"] == Wait("s1", "waiting: no more than 2 of s at once")
    assert isinstance(made["other"], Start)


def test_at_its_limit_a_study_goes_on_in_the_drivers_it_has():
    limited = [cell(f"s{i}", i, group="s", max_parallel=1) for i in range(2)]
    hosts = [host("g", "x"), host("h", "a")]
    made = decide(limited, hosts, cpus=9, drivers={"s": {"h"}})
    assert made == {"s0": Join("s0", "h"), "s1": Join("s1", "h")}
    # A driver of others would be one more.
    (held,) = decide([limited[0]], [hosts[0]], cpus=9, drivers={"s": {"z-a1"}}).values()
    assert isinstance(held, Wait)


@st.composite
def situations(draw):
    packs, groups = st.sampled_from(["", "p", "q"]), st.sampled_from(["", "s", "t"])
    living = draw(st.lists(st.tuples(st.sampled_from("pq"), st.integers(0, 2)), max_size=3))
    hosts = [host(f"h{i}", f"r{i}", pack=p, ahead=n) for i, (p, n) in enumerate(living)]
    drivers = {"s": {h.submission_id for h in hosts if draw(st.booleans())}}
    limits = {"": None, "s": draw(st.none() | st.integers(1, 3)), "t": draw(st.none() | st.just(1))}
    states = st.sampled_from(list(State))
    queue = []
    for i in range(draw(st.integers(1, 12))):
        group, pack = draw(groups), draw(packs)
        wide = Resources(num_workers=1 if pack else draw(st.integers(1, 4)))
        waits = draw(st.sampled_from(["", "", "r0", "r1", "j0", "elsewhere"]))
        state = State.RUNNING if waits[:1] == "r" else State.SCHEDULED
        queue.append(
            Candidate(
                f"j{i}",
                queue_key(draw(st.integers(0, 1)), draw(st.integers(0, 9))),
                wide,
                not_before_ms=draw(st.sampled_from([0, 0, 0, 9])),
                after={waits: draw(states) if waits == "elsewhere" else state} if waits else None,
                pack=pack,
                group=group,
                max_parallel=limits[group],
            )
        )
    return queue, hosts, drivers, draw(st.integers(len(hosts), 8))


@given(situations())
def test_whatever_the_queue(situation):
    queue, hosts, drivers, cpus = situation
    decisions = admit(
        queue, [h.gang for h in hosts], Capacity(cpus, 0), 0, hosts=hosts, drivers=drivers
    )
    jobs = {job.job_id: job for job in queue}
    assert sorted(d.job_id for d in decisions) == sorted(jobs)  # one decision each
    starts = [d for d in decisions if isinstance(d, Start)]
    joins = [d for d in decisions if isinstance(d, Join)]

    # Never more than there is, and never more ahead of a driver than is allowed.
    assert len(hosts) + sum(d.num_workers for d in starts) <= cpus
    by_name = {h.submission_id: h for h in hosts}
    for name, each in by_name.items():
        mine = [d for d in joins if d.host == name]
        assert not mine or each.ahead + len(mine) <= MOST_AHEAD
        assert all((jobs[d.job_id].pack, jobs[d.job_id].resources.num_workers) == (each.pack, 1)
                   for d in mine)  # fmt: skip

    # What a job waits for is finished, or in front of it in its own driver.
    order = [d.job_id for d in decisions]
    placed = {d.job_id: d.host for d in joins} | {j: n for n, h in by_name.items() for j in h.jobs}
    for d in [*starts, *joins]:
        for name, state in (jobs[d.job_id].after or {}).items():
            beside = isinstance(d, Join) and placed.get(name) == d.host
            earlier = name not in order or order.index(name) < order.index(d.job_id)
            assert state is State.FINISHED or (beside and earlier)

    # No study has more drivers than its limit, but for those it had before.
    for group in ("s", "t"):
        had = set(drivers.get(group, ()))
        new = {d.host for d in joins if jobs[d.job_id].group == group} - had
        count = len(new) + sum(jobs[d.job_id].group == group for d in starts)
        limits = {job.max_parallel for job in queue if job.group == group} - {None}
        assert not limits or count == 0 or len(had) + count <= min(limits)

    # Nobody behind the first that waits for room moves; what waits for room could not have moved.
    free = cpus - len(hosts) - sum(d.num_workers for d in starts)
    for place, d in enumerate(decisions):
        if isinstance(d, Wait) and d.for_room and "next attempt" not in d.reason:
            assert not any(isinstance(later, Start | Join) for later in decisions[place:])
            assert free < jobs[d.job_id].resources.total_cpus
            break


@given(st.integers(1, 4), st.integers(1, 30), st.booleans())
def test_a_pack_keeps_going_until_it_is_through(cpus, count, limited):
    """Play it: every driver ends one job a round; all jobs run, in order, none waits for ever."""
    limit = 2 if limited else None
    queue = [cell(f"j{i:02}", i, group="s", max_parallel=limit) for i in range(count)]
    lanes: dict[str, list[str]] = {}
    run: list[str] = []
    for _ in range(3 * count + 3):
        hosts = [host(name, *jobs, ahead=len(jobs) - 1) for name, jobs in lanes.items()]
        decisions = admit(
            queue, [h.gang for h in hosts], Capacity(cpus, 0), 0, hosts=hosts,
            drivers={"s": set(lanes)},
        )  # fmt: skip
        for d in decisions:
            if isinstance(d, Start):
                lanes[f"{d.job_id}-a1"] = [d.job_id]
            elif isinstance(d, Join):
                lanes[d.host].append(d.job_id)
        moved = {d.job_id for d in decisions if isinstance(d, Start | Join)}
        queue = [job for job in queue if job.job_id not in moved]
        assert len(lanes) <= min(cpus, limit or cpus)
        for name in list(lanes):
            run.append(lanes[name].pop(0))
            if not lanes[name]:
                del lanes[name]
    assert not queue
    assert sorted(run) == [f"j{i:02}" for i in range(count)]
