"""What the policy looks at, and what it decides. No behaviour beyond arithmetic."""

from collections.abc import Iterable, Mapping
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
    pack: str = ""
    """Jobs of equal packs may share a driver; empty keeps it to itself."""
    group: str = ""
    """The study it was made for; empty for a job of its own."""
    max_parallel: int | None = None
    """Most drivers that may run jobs of its group at once; None sets no limit."""

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
class Host:
    """A living driver that takes further jobs of its pack."""

    submission_id: str
    """What Ray knows it by."""
    pack: str
    gang: Resources
    """What it holds, however many jobs it was handed."""
    jobs: frozenset[str]
    """Those that it runs or was handed."""
    ahead: int
    """How many of them it has not begun."""
    busy: bool = False
    """Whether what it runs takes so long that others had better wait for other room as well."""


@dataclass(frozen=True)
class Start:
    """The job may start now, with so many workers."""

    job_id: str
    num_workers: int


@dataclass(frozen=True)
class Join:
    """The job is handed to a living driver, which takes it up after those it has."""

    job_id: str
    host: str
    """The driver's submission id."""


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


Decision = Start | Join | Wait | Refuse


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
