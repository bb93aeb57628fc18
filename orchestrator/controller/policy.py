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
    not_before_ms: int = 0
    after: Mapping[str, State | None] | None = None
    """States of the jobs it waits for; None for one that does not exist."""


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


@dataclass(frozen=True)
class Start:
    """The job may start now."""

    job_id: str


@dataclass(frozen=True)
class Wait:
    """The job waits, and why."""

    job_id: str
    reason: str


@dataclass(frozen=True)
class Refuse:
    """The job can never start, and why."""

    job_id: str
    reason: str


Decision = Start | Wait | Refuse


def admit(
    queue: Iterable[Candidate],
    running: Sequence[Resources],
    total: Capacity,
    now_ms: int,
) -> list[Decision]:
    """Decide on every queued job.

    Strict order: the first job that could start but does not fit holds back all behind it, so
    a large job is never starved by small ones. Jobs that wait for a time or for other jobs do
    not hold anybody back.

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
            decision = Wait(job.job_id, f"waiting: behind {blocker} in the queue")
        if decision is None and not free.holds(job.resources):
            blocker = job.job_id
            decision = Wait(job.job_id, _shortage(job.resources, free))
        if decision is None:
            free = free.minus(job.resources)
            decision = Start(job.job_id)
        decisions.append(decision)
    return decisions


def _not_eligible(job: Candidate, total: Capacity, now_ms: int) -> Decision | None:
    """Return why a job may not be considered yet, whatever is free."""
    for name, state in (job.after or {}).items():
        if state is None:
            return Refuse(job.job_id, f"it was to run after {name}, which does not exist")
        if state.is_final and state is not State.FINISHED:
            return Refuse(job.job_id, f"it was to run after {name}, which is {state}")
        if state is not State.FINISHED:
            return Wait(job.job_id, f"waiting: for {name} to finish")
    if not total.holds(job.resources):
        return Wait(
            job.job_id,
            f"waiting: needs {_amount(job.resources.total_cpus, job.resources.total_gpus)}, the "
            f"cluster has {_amount(total.cpus, total.gpus)} in all now",
        )
    if now_ms < job.not_before_ms:
        seconds = (job.not_before_ms - now_ms) / 1000
        return Wait(job.job_id, f"waiting: next attempt in {seconds:.0f} s")
    return None


def _shortage(wanted: Resources, free: Capacity) -> str:
    need = _amount(wanted.total_cpus, wanted.total_gpus)
    return f"waiting: needs {need}, {_amount(max(free.cpus, 0), max(free.gpus, 0))} free"


def _amount(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
