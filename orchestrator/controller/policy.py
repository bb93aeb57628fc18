"""Which queued jobs may start now. Pure: looks, and returns decisions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.jobs.spec import Resources
from orchestrator.jobs.states import State


@dataclass(frozen=True)
class Candidate:
    """A queued job as the policy sees it."""

    job_id: str
    queue_key: str
    """Sorts by priority, then by submission."""
    resources: Resources
    worker_counts: tuple[int, ...] = ()
    """Numbers of workers that it may start with, ascending; empty for `num_workers` only."""
    not_before_ms: int = 0
    after: Mapping[str, State | None] | None = None
    """States of the jobs it waits for; None for one that does not exist."""

    def gangs(self) -> list[Resources]:
        """Return the gangs that it may start with, the largest first."""
        counts = self.worker_counts or (self.resources.num_workers,)
        return [self.resources.with_workers(count) for count in reversed(counts)]

    @property
    def smallest_gang(self) -> Resources:
        """What it cannot start without."""
        return self.gangs()[-1]


@dataclass(frozen=True)
class Capacity:
    """CPUs and GPUs, of the whole cluster or of what runs on it."""

    cpus: float
    gpus: float

    def minus(self, resources: Resources) -> "Capacity":
        """Return what is left beside a gang."""
        return Capacity(self.cpus - resources.total_cpus, self.gpus - resources.total_gpus)

    def holds(self, resources: Resources) -> bool:
        """Whether a whole gang fits; part of one is never started."""
        return self.cpus >= resources.total_cpus and self.gpus >= resources.total_gpus

    def largest(self, gangs: Iterable[Resources]) -> Resources | None:
        """Return the first of `gangs`, the largest coming first, that fits."""
        return next((gang for gang in gangs if self.holds(gang)), None)


@dataclass(frozen=True)
class Start:
    """The job may start now, with so many workers."""

    job_id: str
    num_workers: int


@dataclass(frozen=True)
class Wait:
    """The job waits, and why."""

    job_id: str
    reason: str
    for_room: bool = False
    """Whether it would take room that is free or becomes free."""


@dataclass(frozen=True)
class Refuse:
    """The job can never start, and why."""

    job_id: str
    reason: str


Decision = Start | Wait | Refuse


@dataclass(frozen=True)
class Elastic:
    """A running job that may have more workers."""

    job_id: str
    candidate: Candidate
    num_workers: int
    """Those it has."""
    seconds_running: float
    """Since its newest attempt was launched."""
    seconds_left: float | None
    """Until it is through, as it says itself; None as long as it does not train."""


GROW_AFTER_S = 60.0
"""A gang is left in peace for so long: each change costs a restart from the last checkpoint."""
GROW_BEFORE_END_S = 120.0
"""A training that is through sooner gains nothing from a restart."""


def admit(
    queue: Iterable[Candidate],
    running: Sequence[Resources],
    total: Capacity,
    now_ms: int,
) -> list[Decision]:
    """Decide on every queued job.

    Strict order: the first job that could start but does not fit holds back all behind it, so
    a large job is never starved by small ones. Jobs that wait for a time or for other jobs do
    not hold anybody back. A job that takes several numbers of workers starts with the most that
    fit; the fewest are what it waits for.

    Args:
        queue: Queued jobs in any order.
        running: What the running jobs hold.
        total: The whole cluster.
        now_ms: The present time.
    """
    free = total
    for resources in running:
        free = free.minus(resources)
    decisions: list[Decision] = []
    blocker = ""
    for job in sorted(queue, key=lambda candidate: (candidate.queue_key, candidate.job_id)):
        decision = _not_eligible(job, total, now_ms)
        if decision is None and blocker:
            decision = Wait(job.job_id, f"waiting: behind {blocker} in the queue", for_room=True)
        if decision is None:
            gang = free.largest(job.gangs())
            if gang is None:
                blocker = job.job_id
                decision = Wait(job.job_id, _shortage(job.smallest_gang, free), for_room=True)
            else:
                free = free.minus(gang)
                decision = Start(job.job_id, gang.num_workers)
        decisions.append(decision)
    return decisions


def grow(
    running: Iterable[Elastic], holding: Sequence[Resources], total: Capacity
) -> dict[str, int]:
    """Return which running jobs should have more workers, and how many.

    To be asked only while nobody is queued for room: what waits comes before what grows.

    Args:
        running: The jobs that can grow, in any order; the first in the queue grows first.
        holding: What all running jobs hold, these among them.
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


def _not_eligible(job: Candidate, total: Capacity, now_ms: int) -> Decision | None:
    """Return why a job may not be considered yet, whatever is free."""
    for name, state in (job.after or {}).items():
        if state is None:
            return Refuse(job.job_id, f"it was to run after {name}, which does not exist")
        if state.is_final and state is not State.FINISHED:
            return Refuse(job.job_id, f"it was to run after {name}, which is {state}")
        if state is not State.FINISHED:
            return Wait(job.job_id, f"waiting: for {name} to finish")
    least = job.smallest_gang
    if not total.holds(least):
        return Wait(
            job.job_id,
            f"waiting: needs {_amount(least.total_cpus, least.total_gpus)}, the "
            f"cluster has {_amount(total.cpus, total.gpus)} in all now",
        )
    if now_ms < job.not_before_ms:
        seconds = (job.not_before_ms - now_ms) / 1000
        return Wait(job.job_id, f"waiting: next attempt in {seconds:.0f} s", for_room=True)
    return None


def _shortage(wanted: Resources, free: Capacity) -> str:
    need = _amount(wanted.total_cpus, wanted.total_gpus)
    return f"waiting: needs {need}, {_amount(max(free.cpus, 0), max(free.gpus, 0))} free"


def _amount(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
