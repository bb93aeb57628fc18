"""`gcpctl stop`: ask; the controller and the loop do it."""

import click

from orchestrator.cli.options import complete_jobs
from orchestrator.cli.output import talk
from orchestrator.cli.session import connect
from orchestrator.cli.waiting import wait_until_final
from orchestrator.jobs.job import TAG_STOP
from orchestrator.jobs.store import now_ms


@click.command(no_args_is_help=True)
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...", shell_complete=complete_jobs)
@click.option("--wait", is_flag=True, help="Return when the jobs have ended.")
def stop(jobs: tuple[str, ...], wait: bool) -> None:
    """Stop jobs; a running one saves a checkpoint first.

    A stopped job is KILLED; `gcpctl retry` makes it go on from its checkpoint.
    """
    session = connect()
    found = [session.store.find(name) for name in jobs]  # all exist, or none is stopped
    asked = []
    for job in found:
        if job.state.is_final:
            talk(f"{job.job_id} is {job.state} already")
            continue
        session.store.set_tags(job, {TAG_STOP: str(now_ms())})
        asked.append(job)
        talk(f"asked {job.job_id} to stop")
    session.nudge()
    if wait:
        for job in asked:
            ended = wait_until_final(session, job)
            talk(f"{ended.job_id} is {ended.state}: {ended.reason}")
