"""`gcpctl watch`: a study, a sweep or a job, live, until it ends."""

import sys

import click

from orchestrator.cli.follow import follow
from orchestrator.cli.options import complete_jobs
from orchestrator.cli.session import connect


@click.command(no_args_is_help=True)
@click.argument("job", shell_complete=complete_jobs)
def watch(job: str) -> None:
    """Show how a study, a sweep or a job gets on, until it ends.

    JOB is an id, or a part of one that begins or ends it. Ctrl-C ends only the watching. The exit
    code is 0 if the job has finished, 10 if it failed, and 11 if it was stopped.

    \b
      gcpctl watch ablation-pooling-k7x2
    """
    session = connect()
    sys.exit(follow(session, session.store.find(job)))
