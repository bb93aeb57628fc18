"""`gcpctl retry`: put an ended job back into the queue."""

import json

import click

from orchestrator.cli.options import complete_jobs
from orchestrator.cli.output import talk
from orchestrator.cli.session import connect
from orchestrator.jobs.errors import ConflictError
from orchestrator.jobs.job import (
    TAG_LAUNCHED,
    TAG_NOT_BEFORE,
    TAG_QUEUE_KEY,
    TAG_RETRIES,
    TAG_STOP,
    queue_key,
)
from orchestrator.jobs.states import State
from orchestrator.jobs.store import now_ms


@click.command(no_args_is_help=True)
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...", shell_complete=complete_jobs)
def retry(jobs: tuple[str, ...]) -> None:
    """Queue failed or stopped jobs again, to resume.

    The job keeps its name, its run and its checkpoints: the next attempt goes on from the last
    one. Its retries are counted afresh.
    """
    session = connect()
    found = [session.store.find(name) for name in jobs]
    for job in found:
        if job.state not in (State.FAILED, State.KILLED):
            hint = "submit it anew to train again" if job.state.is_final else "it needs no retry"
            raise ConflictError(f"{job.job_id} is {job.state}", hint)
    for job in found:
        session.store.move(
            job,
            State.SCHEDULED,
            phase="queued",
            reason="",
            tags={
                TAG_STOP: "",
                TAG_NOT_BEFORE: "0",
                TAG_LAUNCHED: "0",
                TAG_RETRIES: json.dumps({"used": 0, "epoch": job.epoch}),
                TAG_QUEUE_KEY: queue_key(job.priority, now_ms()),
            },
        )
        talk(f"queued {job.job_id} again, as attempt {job.attempt + 1}")
    session.nudge()
