"""A study or a sweep on a terminal, drawn again whenever it has moved, until it ends."""

import shutil
import time

import click

from orchestrator.cli.group_page import page
from orchestrator.cli.output import answer, is_terminal, talk
from orchestrator.cli.session import Session
from orchestrator.jobs.errors import UnreachableError
from orchestrator.jobs.job import Job
from orchestrator.results.live_group import LiveGroup

_POLL_S = 1.5
_SHARE = 4
"""A look takes at most this part of the time, so that the server has the rest for the jobs."""
_HOME, _CLEAR_BELOW, _CLEAR_LINE = "\x1b[H", "\x1b[J", "\x1b[K"
_OTHER_LINES = 7
"""Lines of a page that are neither cells nor the reasons of failures, and two to spare."""


def show_until_final(session: Session, job: Job) -> Job:
    """Show a study or sweep until it ends; return it as it ended.

    On a terminal the page is drawn over itself, cut to what fits; elsewhere lines are added that
    were not there before.
    """
    group, screen = LiveGroup(session.store, job), _Screen()
    complained = False
    while True:
        began = time.monotonic()
        try:
            fresh = session.store.get(job.run_id)
            screen.show(fresh, group.look(fresh))
        except UnreachableError as exc:
            if not complained:
                talk(f"{exc.message}; waiting for it, the jobs are not affected")
            complained = True
        else:
            complained = False
            if fresh.state.is_final:
                return fresh
        time.sleep(max(_POLL_S, _SHARE * (time.monotonic() - began)))


class _Screen:
    """Where pages go: over the last one, or below it."""

    def __init__(self) -> None:
        self._shown: list[str] = []

    def show(self, job: Job, jobs: list[Job]) -> None:
        """Write what is new of a page."""
        if not is_terminal():
            lines = page(job, jobs).split("\n")
            if new := [line for line in lines if line not in self._shown]:
                answer("\n".join(new))
            self._shown = lines
            return
        height = shutil.get_terminal_size().lines
        text = page(job, jobs, most=max(height - _OTHER_LINES, 3)).split("\n")
        lines = text if job.state.is_final else text[: height - 2]
        if lines == self._shown:
            return
        if not self._shown:
            click.clear()
        answer(_HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_BELOW)
        self._shown = lines
