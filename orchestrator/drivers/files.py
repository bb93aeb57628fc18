"""Files that a job leaves in MLflow."""

from pathlib import Path

from orchestrator.drivers.outcome import say
from orchestrator.drivers.tracking import patiently
from orchestrator.jobs.errors import ApiError, ConflictError, UnreachableError
from orchestrator.jobs.job import Job
from orchestrator.jobs.store import JobStore

_PATIENCE_S = 300.0


def store_file(store: JobStore, job: Job, name: str, content: bytes, *, place: Path) -> bool:
    """Store a file that is worth waiting for a server, but not worth an attempt.

    Args:
        name: Its path among the job's artifacts.
        place: Where it lies in the storage, for the log.

    Returns:
        Whether the server took it.
    """
    try:
        patiently(lambda: store.put_artifact(job, name, content), seconds=_PATIENCE_S)
    except (UnreachableError, ApiError, ConflictError) as exc:
        say(f"could not store {name}: {exc.message}; it is in {place}")
        return False
    return True
