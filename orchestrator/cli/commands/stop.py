"""`gcpctl stop`: ask; the controller and the loop do it."""

import click

from orchestrator.cli.options import complete_jobs
from orchestrator.cli.output import talk
from orchestrator.cli.session import Session, connect
from orchestrator.cli.waiting import wait_until_final
from orchestrator.jobs.groups import stop_study
from orchestrator.jobs.job import STUDY, TAG_STOP, Job
from orchestrator.jobs.store import now_ms


@click.command(no_args_is_help=True)
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...", shell_complete=complete_jobs)
@click.option("--wait", is_flag=True, help="Return when the jobs have ended.")
def stop(jobs: tuple[str, ...], wait: bool) -> None:
    """Stop jobs; a running one saves a checkpoint first.

    A stopped job is KILLED; `gcpctl retry` makes it go on from its checkpoint. With a study stop
    the jobs that were made for it, unless another study waits for them.
    """
    session = connect()
    found = [session.store.find(name) for name in jobs]  # all exist, or none is stopped
    asked = []
    for job in found:
        if job.kind == STUDY:
            asked += _stop_study(session, job)
            continue
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


def _stop_study(session: Session, study: Job) -> list[Job]:
    """Stop a study with its jobs, say so, and return what will end."""
    stopping = stop_study(session.store, study)
    for job in stopping.spared:
        talk(f"{job.job_id} goes on: another study waits for it")
    jobs = [job for job in stopping.asked if job is not study]
    if study.state.is_final:
        talk(f"{study.job_id} is {study.state} already")
    else:
        talk(f"asked {study.job_id} to stop")
    if jobs:
        talk(f"asked {len(jobs)} of its jobs to stop")
    return list(stopping.asked)
