"""`gcpctl retry`: put an ended job back into the queue."""

import click

from orchestrator.cli.options import complete_jobs
from orchestrator.cli.output import talk
from orchestrator.cli.session import Session, connect
from orchestrator.jobs.errors import ConflictError
from orchestrator.jobs.groups import requeue, retry_study
from orchestrator.jobs.job import STUDY, Job
from orchestrator.jobs.states import State


@click.command(no_args_is_help=True)
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...", shell_complete=complete_jobs)
def retry(jobs: tuple[str, ...]) -> None:
    """Queue failed or stopped jobs again, to resume.

    The job keeps its name, its run and its checkpoints: the next attempt goes on from the last
    one. Its retries are counted afresh. Of a study, the jobs that failed or were stopped are queued
    again, and the study reports anew.
    """
    session = connect()
    found = [session.store.find(name) for name in jobs]
    for job in found:
        if job.kind != STUDY and job.state not in (State.FAILED, State.KILLED):
            hint = "submit it anew to train again" if job.state.is_final else "it needs no retry"
            raise ConflictError(f"{job.job_id} is {job.state}", hint)
    for job in found:
        if job.kind == STUDY:
            _retry_study(session, job)
        else:
            requeue(session.store, job)
            talk(f"queued {job.job_id} again, as attempt {job.attempt + 1}")
    session.nudge()


def _retry_study(session: Session, study: Job) -> None:
    """Queue what failed of a study again, and say so."""
    queued, foreign = retry_study(session.store, study)
    for job in queued:
        talk(f"queued {job.job_id} again, as attempt {job.attempt + 1}")
    for job in foreign:
        talk(f"{job.job_id} is {job.state} and was made for something else; it stays so")
    if foreign:
        talk("  submit the study again to train anew what others stopped")
