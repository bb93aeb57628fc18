"""Which queued jobs may start now. Pure: looks, and returns decisions."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from orchestrator.controller.candidates import (
    Candidate,
    Capacity,
    Decision,
    Elastic,
    Host,
    Refuse,
    Start,
    Wait,
)
from orchestrator.controller.sharing import SharedDrivers
from orchestrator.jobs.queue_head import BEYOND
from orchestrator.jobs.spec import Resources
from orchestrator.jobs.states import State

GROW_AFTER_S = 60.0
"""A gang is left in peace for so long: each change costs a restart from the last checkpoint."""
GROW_BEFORE_END_S = 120.0
"""A training that is through sooner gains nothing from a restart."""


def admit(
    queue: Iterable[Candidate],
    running: Sequence[Resources],
    total: Capacity,
    now_ms: int,
    *,
    hosts: Iterable[Host] = (),
    drivers: Mapping[str, Collection[str]] = {},
) -> list[Decision]:
    """Decide on every queued job.

    Strict order: the first job that could start but does not fit holds back all behind it, so
    a large job is never starved by small ones. Jobs that wait for a time, for other jobs or for
    the limit of their own study do not hold anybody back. A job that takes several numbers of
    workers starts with the most that fit; the fewest are what it waits for.

    A job with a pack gets a driver of its own where there is room for one, and is handed to a
    living one where there is none. One that waits for a job of a living driver is handed to that
    driver right away, to run after it. Nobody behind the job that holds them back is handed to a
    driver either: else drivers would live on, and the room never come.

    Args:
        queue: Queued jobs in any order.
        running: What the living drivers hold.
        total: The whole cluster.
        now_ms: The present time.
        hosts: Those of the drivers that take further jobs.
        drivers: Study -> submission ids of the drivers that run jobs of it.
    """
    free = total
    for resources in running:
        free = free.minus(resources)
    shared = SharedDrivers(hosts, drivers)
    blocker: Candidate | None = None
    decisions: list[Decision] = []
    for job in sorted(queue, key=lambda job: (job.queue_key, job.job_id)):
        decision = _not_eligible(job, total, now_ms, shared if blocker is None else None)
        if decision is None and blocker is not None:
            decision = Wait(job.job_id, _behind(job, blocker), for_room=True)
        if decision is None:
            gang = free.largest(job.gangs()) if shared.allow_new(job) else None
            host = shared.for_job(job) if gang is None else None
            if gang is not None:
                free = free.minus(gang)
                decision = Start(job.job_id, gang.num_workers)
                shared.started(job)
            elif host is not None:
                decision = shared.join(job, host)
            elif not shared.allow_new(job):
                most = f"{job.max_parallel} of {job.group} at once"
                decision = Wait(job.job_id, f"waiting: no more than {most}")
            else:
                blocker = job
                turn = shared.will_take(job)
                reason = _turn(job) if turn else _shortage(job.smallest_gang, free)
                decision = Wait(job.job_id, reason, for_room=True)
        decisions.append(decision)
    return decisions


def grow(
    running: Iterable[Elastic], holding: Sequence[Resources], total: Capacity
) -> dict[str, int]:
    """Return which running jobs should have more workers, and how many.

    To be asked only while nobody is queued for room: what waits comes before what grows.

    Args:
        running: The jobs that can grow, in any order; the first in the queue grows first.
        holding: What all living drivers hold, theirs among it.
        total: The whole cluster.
    """
    free = total
    for resources in holding:
        free = free.minus(resources)
    wanted: dict[str, int] = {}
    for job in sorted(running, key=lambda job: (job.candidate.queue_key, job.job_id)):
        if job.seconds_running < GROW_AFTER_S:
            continue
        if job.seconds_left is None or job.seconds_left < GROW_BEFORE_END_S:
            continue
        own = job.candidate.resources.with_workers(job.num_workers)
        room = Capacity(free.cpus + own.total_cpus, free.gpus + own.total_gpus)
        gang = room.largest(job.candidate.gangs())
        if gang is not None and gang.num_workers > job.num_workers:
            wanted[job.job_id] = gang.num_workers
            free = room.minus(gang)
    return wanted


def _not_eligible(
    job: Candidate, total: Capacity, now_ms: int, shared: SharedDrivers | None
) -> Decision | None:
    """Return what becomes of a job that may not be considered yet, whatever is free.

    Args:
        job: The job.
        total: The whole cluster.
        now_ms: The present time.
        shared: The drivers that it may be handed to; None while somebody ahead waits for room.
    """
    states = job.after or {}
    for name, state in states.items():
        if state is None:
            return Refuse(job.job_id, f"it was to run after {name}, which does not exist")
        if state.is_final and state is not State.FINISHED:
            return Refuse(job.job_id, f"it was to run after {name}, which is {state}")
    pending = [name for name, state in states.items() if state is not State.FINISHED]
    if pending:
        ripe = shared is not None and now_ms >= job.not_before_ms
        host = shared.beside(job, pending) if shared is not None and ripe else None
        if shared is not None and host is not None:
            return shared.join(job, host)
        return Wait(job.job_id, f"waiting: for {pending[0]} to finish")
    least = job.smallest_gang
    if not total.holds(least):
        return Wait(
            job.job_id,
            f"waiting: needs {_amount(least.total_cpus, least.total_gpus)}, the "
            f"cluster has {_amount(total.cpus, total.gpus)} {BEYOND}",
        )
    if now_ms < job.not_before_ms:
        seconds = (job.not_before_ms - now_ms) / 1000
        return Wait(job.job_id, f"waiting: next attempt in {seconds:.0f} s", for_room=True)
    return None


def _behind(job: Candidate, blocker: Candidate) -> str:
    # Within a study the one in front changes all the time; the words should not.
    alike = job.group == blocker.group != ""
    return _turn(job) if alike else f"waiting: behind {blocker.job_id} in the queue"


def _turn(job: Candidate) -> str:
    return f"waiting: its turn in {job.group}" if job.group else "waiting: its turn in its pack"


def _shortage(wanted: Resources, free: Capacity) -> str:
    need = _amount(wanted.total_cpus, wanted.total_gpus)
    return f"waiting: needs {need}, {_amount(max(free.cpus, 0), max(free.gpus, 0))} free"


def _amount(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
