"""One driver, many jobs: a job that may share its process, and those handed to its driver.

The controller hands a queued job over by recording this driver with it (`TAG_HOST`); nothing is
submitted to Ray. When a job is over, the driver asks the store which others it was handed, takes
up the oldest, and ends when there is none. Each is an attempt like any other, with its own
tracker, log and outcome. What dies with the driver was handed and not begun, or is judged by the
controller as any attempt.
"""

from typing import Protocol

from cluster.profiles import Profile
from orchestrator.drivers.attempt import job_paths, output_size
from orchestrator.drivers.outcome import Outcome, say
from orchestrator.drivers.stop_signal import StopSignal
from orchestrator.drivers.tracking import patiently
from orchestrator.jobs.job import TAG_BEGUN, TAG_HOST, TAG_QUEUE_KEY, Job
from orchestrator.jobs.logs import begin_line, end_line
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore, safe_text


class RunOne(Protocol):
    """Runs an attempt of a job from its first word to its last."""

    def __call__(self, job: Job, attempt: int, stop: StopSignal, *, log_begins_at: int) -> Outcome:
        """Return how it ended; the job is closed by then."""
        ...


class PackDriver:
    """Runs a job and then what its driver is handed, one after the other.

    Args:
        profile: The cluster this process runs on.
        first: The job that the driver was started for.
        run_one: Runs one attempt.
        store: Where jobs are recorded; the cluster's when left out.
    """

    def __init__(
        self, profile: Profile, first: Job, run_one: RunOne, store: JobStore | None = None
    ) -> None:
        self._first = first
        self._host = first.submission_id
        self._run_one = run_one
        self._store = store or JobStore.of(profile)
        self._stop = StopSignal(job_paths(profile, first))
        self._ended: dict[str, bool] = {}
        """The jobs run here, and whether each finished."""

    def run(self) -> int:
        """Run until nothing is handed over any more; return the number of jobs that were run."""
        self._run(self._first)
        while not self._stop.is_set and (job := self._next()) is not None:
            self._run(job)
        return len(self._ended)

    def _run(self, job: Job) -> None:
        log_begins_at = output_size() if self._ended else 0  # how the driver began is the first's
        say(begin_line(job.job_id, job.attempt))
        outcome = self._run_one(job, job.attempt, self._stop, log_begins_at=log_begins_at)
        say(end_line(job.job_id, job.attempt))
        self._ended[job.job_id] = outcome.kind == "finished"

    def _next(self) -> Job | None:
        """Return the next job that is taken up, marked as begun."""
        handed = patiently(self._handed)
        waited_for = {job.job_id for job in handed}
        for job in handed:
            if waited_for.intersection(job.raw_spec.get("after", ())):
                continue  # its turn comes after the other's
            if not patiently(lambda: self._may_run(job)):  # noqa: B023 - called at once
                continue  # left to the controller, which takes it back
            begun = patiently(lambda: self._begin(job))  # noqa: B023 - called at once
            if begun is not None:
                return begun
        return None

    def _handed(self) -> list[Job]:
        """Return what was handed over and not begun, oldest first."""
        where = f"attributes.status = 'RUNNING' AND tags.`{TAG_HOST}` = '{safe_text(self._host)}'"
        jobs = self._store.search(where, limit=100, order_by=[f"tags.`{TAG_QUEUE_KEY}` ASC"])
        return [job for job in jobs if not job.has_begun]

    def _may_run(self, job: Job) -> bool:
        """Whether all that the job waits for is finished, here or elsewhere."""
        for name in job.raw_spec.get("after", ()):
            if not self._ended.get(name):
                found = self._store.find_exact(name)
                if found is None or found.state is not State.FINISHED:
                    return False
        return True

    def _begin(self, job: Job) -> Job | None:
        """Say that the job is begun, and return it unless it was taken back before that."""
        self._store.set_tags(job, {TAG_BEGUN: str(job.attempt)})
        fresh = self._store.get(job.run_id)
        is_mine = fresh.submission_id == self._host and fresh.attempt == job.attempt
        if is_mine and fresh.state is State.RUNNING:
            return fresh
        say(f"{job.job_id} was taken back before it began")
        return None
