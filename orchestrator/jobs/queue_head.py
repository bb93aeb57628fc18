"""Which of the queued jobs are the head of the queue: those that take the next room."""

from collections.abc import Iterable

from orchestrator.jobs.job import STUDY, Job

BEYOND = "in all now"
"""What the reason ends with of a job that is larger than the whole cluster."""


class QueueHead:
    """Tells jobs that start now or hold others back from those that let others pass.

    Args:
        running: The RUNNING jobs.
        now_ms: The present time.
    """

    def __init__(self, running: Iterable[Job], now_ms: int) -> None:
        self._now_ms = now_ms
        self._drivers: dict[str, set[str]] = {}
        for job in running:
            if job.group and job.attempt:
                self._drivers.setdefault(job.group, set()).add(job.submission_id)

    def reaches(self, job: Job) -> bool:
        """Whether a queued job waits for nothing but room.

        One that waits for a time, for other jobs, for its members (a study), for others of its
        study (`max_parallel`) or, as it was told, for machines lets those behind it pass.
        """
        most = job.raw_spec.get("max_parallel")
        crowded = most is not None and len(self._drivers.get(job.group, ())) >= most
        waits = job.kind == STUDY or bool(job.raw_spec.get("after"))
        waits |= job.reason.endswith(BEYOND)
        return not waits and not crowded and job.not_before_ms <= self._now_ms
