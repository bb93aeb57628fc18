"""Wait for a job to end."""

import time

from orchestrator.cli.session import Session
from orchestrator.jobs.errors import UnreachableError
from orchestrator.jobs.job import Job

_POLL_S = 0.3


def wait_until_final(session: Session, job: Job) -> Job:
    """Return the job once it has ended; an unreachable server is waited for."""
    while not job.state.is_final:
        time.sleep(_POLL_S)
        try:
            job = session.store.get(job.run_id)
        except UnreachableError:
            continue
    return job
