"""The drivers that are alive: what Ray says of them, what they hold, which jobs they run.

A driver may run many jobs, one after the other. It holds its room once, and Ray is asked about it
once in a step.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from orchestrator.controller.candidates import Host
from orchestrator.jobs.job import Job
from orchestrator.jobs.ray_jobs import Node, RayJob
from orchestrator.jobs.spec import Resources

BUSY_S = 60.0
"""A driver whose job takes longer is handed no others: room may come sooner elsewhere."""


class RayJobsApi(Protocol):
    """What the step needs of Ray; `RayJobs` and the tests' fake provide it."""

    def submit(self, submission_id: str, entrypoint: str, metadata: dict[str, str]) -> None:
        """Start a driver, unless Ray knows the id."""

    def get(self, submission_id: str) -> RayJob | None:
        """Return an attempt, or None if unknown."""

    def stop(self, submission_id: str) -> bool:
        """Ask an attempt to end; return whether it was told."""

    def nodes(self) -> list[Node]:
        """Return the living machines."""


class Fleet:
    """The drivers of one step, each with the jobs that hold on to it."""

    def __init__(self, ray: RayJobsApi) -> None:
        self._ray = ray
        self._said: dict[str, RayJob | None] = {}
        self._jobs: dict[str, list[Job]] = {}
        self._gangs: dict[str, Resources] = {}
        self._closed: set[str] = set()

    def driver_of(self, job: Job) -> RayJob | None:
        """Return the driver of a job's newest attempt as Ray sees it; None if unknown to it."""
        name = job.submission_id
        if name not in self._said:
            self._said[name] = self._ray.get(name)
        return self._said[name]

    def add(self, job: Job) -> None:
        """Count a job with its driver, which holds its room as long as it has one."""
        self._gangs.setdefault(job.submission_id, job.gang)
        self._jobs.setdefault(job.submission_id, []).append(job)

    def close(self, job: Job) -> None:
        """Have the job's driver take no further jobs: it was told to end."""
        self._closed.add(job.submission_id)

    def holding(self) -> list[Resources]:
        """Return what each living driver holds."""
        return list(self._gangs.values())

    def hosts(self) -> list[Host]:
        """Return the drivers that take further jobs."""
        found = []
        for name, jobs in self._jobs.items():
            said = self._said.get(name)
            pack = jobs[0].pack
            if not pack or said is None or said.is_over or name in self._closed:
                continue
            found.append(
                Host(
                    submission_id=name,
                    pack=pack,
                    gang=self._gangs[name],
                    jobs=frozenset(job.job_id for job in jobs),
                    ahead=sum(not job.has_begun for job in jobs),
                    busy=seconds_left(jobs) > BUSY_S,
                )
            )
        return found

    def of_groups(self) -> Mapping[str, set[str]]:
        """Return study -> submission ids of the drivers that run jobs of it."""
        found: dict[str, set[str]] = {}
        for name, jobs in self._jobs.items():
            for group in {job.group for job in jobs} - {""}:
                found.setdefault(group, set()).add(name)
        return found


def seconds_left(jobs: Iterable[Job]) -> float:
    """Return how long a driver is at the job that it has begun; 0 as long as that is unknown."""
    return max((float(job.progress.get("eta_s") or 0) for job in jobs if job.has_begun), default=0)
