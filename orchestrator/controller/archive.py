"""Keep the log of an attempt with its job, whoever wrote it and whatever became of the head."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from orchestrator.jobs.errors import GcpctlError
from orchestrator.jobs.ids import submission_id
from orchestrator.jobs.job import Job
from orchestrator.jobs.logs import artifact_name, slice_log
from orchestrator.jobs.ray_jobs import RayJobs
from orchestrator.jobs.store import JobStore

_log = logging.getLogger("gcpctl.controller")
_LIMIT_BYTES = 32 * 1024 * 1024


def log_archiver(store: JobStore, ray: RayJobs, ray_log_root: Path | None) -> Callable[[Job], None]:
    """Return a function that stores the log of a job's newest attempt as an artifact.

    The driver archives its own log when it ends in order; this is for one that was killed.

    Args:
        ray_log_root: Where Ray keeps its sessions on this machine, if it does: the log of a
            driver outlives the head that ran it.
    """

    def archive(job: Job) -> None:
        name = artifact_name(job.attempt)
        try:
            if name in store.list_artifacts(job, "logs"):
                return
            content = _fetch(ray, ray_log_root, job.submission_id)
            if job.pack:  # the log is of all jobs that the driver ran
                content = _slice(content, job)
            if content:
                store.put_artifact(job, name, content[-_LIMIT_BYTES:])
        except (GcpctlError, OSError) as exc:
            # A log that cannot be kept must not keep a job from ending.
            _log.warning("the log of %s, attempt %d: %s", job.job_id, job.attempt, exc)

    return archive


def _slice(content: bytes, job: Job) -> bytes:
    is_own = job.submission_id == submission_id(job.job_id, job.attempt)
    text = content.decode(errors="replace")
    return slice_log(text, job.job_id, job.attempt, is_own=is_own).encode()


def _fetch(ray: RayJobs, root: Path | None, attempt_id: str) -> bytes:
    """Return a log from this machine's disk if it is there, else through Ray."""
    found = sorted(root.glob(f"session_*/logs/job-driver-{attempt_id}.log")) if root else []
    if not found:
        return ray.logs(attempt_id).encode()
    with found[-1].open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LIMIT_BYTES))
        return file.read()
