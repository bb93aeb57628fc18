"""Keep the log of an attempt with its job, whoever wrote it and whatever became of the head."""

from collections.abc import Callable
from pathlib import Path

from orchestrator.jobs.errors import ApiError, NotFoundError
from orchestrator.jobs.ids import submission_id
from orchestrator.jobs.job import Job
from orchestrator.jobs.logs import artifact_name
from orchestrator.jobs.ray_jobs import RayJobs
from orchestrator.jobs.store import JobStore

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
        if name in store.list_artifacts(job, "logs"):
            return
        attempt_id = submission_id(job.job_id, job.attempt)
        try:
            content = ray.logs(attempt_id).encode()
        except (NotFoundError, ApiError):
            content = _from_disk(ray_log_root, attempt_id)
        if content:
            store.put_artifact(job, name, content[-_LIMIT_BYTES:])

    return archive


def _from_disk(root: Path | None, attempt_id: str) -> bytes:
    if root is None:
        return b""
    found = sorted(root.glob(f"session_*/logs/job-driver-{attempt_id}.log"))
    return found[-1].read_bytes() if found else b""
