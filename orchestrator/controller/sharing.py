"""Which living driver takes a queued job: the part of the policy that is about packs. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.controller.candidates import Candidate, Host, Join
from orchestrator.jobs.spec import Resources

MOST_AHEAD = 2
"""Jobs handed to one driver ahead: it never idles, and little is given back when it dies."""


@dataclass
class SharedDriver:
    """A living driver while decisions are made."""

    host: Host
    jobs: set[str] = field(default_factory=set)
    ahead: int = 0


class SharedDrivers:
    """The living drivers while decisions are made, and how many run jobs of each study."""

    def __init__(self, hosts: Iterable[Host], drivers: Mapping[str, Collection[str]]) -> None:
        self._hosts = [SharedDriver(host, set(host.jobs), host.ahead) for host in hosts]
        self._drivers = {group: set(ids) for group, ids in drivers.items()}
        self._starting: set[tuple[str, Resources]] = set()

    def allow_new(self, job: Candidate) -> bool:
        """Whether one more driver may run jobs of its study."""
        return not self._limited(job) or len(self._drivers.get(job.group, ())) < (
            job.max_parallel or 0
        )

    def for_job(self, job: Candidate) -> SharedDriver | None:
        """Return the driver with the least to do among those that may take the job."""
        able = [host for host in self._hosts if self._takes(host, job)]
        return min(able, key=lambda host: (host.ahead, host.host.submission_id), default=None)

    def beside(self, job: Candidate, names: Collection[str]) -> SharedDriver | None:
        """Return the driver that runs all of these jobs, if it may take the job behind them."""
        for host in self._hosts:
            if host.jobs.issuperset(names):
                return host if self._takes(host, job) else None
        return None

    def will_take(self, job: Candidate) -> bool:
        """Whether drivers live, or have just been started, that take such jobs one by one."""
        living = {(shared.host.pack, shared.host.gang) for shared in self._hosts}
        return bool(job.pack) and (job.pack, job.smallest_gang) in living | self._starting

    def join(self, job: Candidate, host: SharedDriver) -> Join:
        """Hand the job over."""
        host.jobs.add(job.job_id)
        host.ahead += 1
        self._drivers.setdefault(job.group, set()).add(host.host.submission_id)
        return Join(job.job_id, host.host.submission_id)

    def started(self, job: Candidate) -> None:
        """Count the job's new driver."""
        self._drivers.setdefault(job.group, set()).add(f"of {job.job_id}")
        self._starting.add((job.pack, job.smallest_gang))

    def _takes(self, shared: SharedDriver, job: Candidate) -> bool:
        host = shared.host
        fits = bool(job.pack) and (host.pack, host.gang) == (job.pack, job.smallest_gang)
        counted = host.submission_id in self._drivers.get(job.group, ())
        free = not host.busy and shared.ahead < MOST_AHEAD
        return fits and free and (counted or self.allow_new(job))

    @staticmethod
    def _limited(job: Candidate) -> bool:
        return bool(job.group) and job.max_parallel is not None
