"""`gcpctl logs`: what the driver and the workers wrote, also after the job has ended."""

import asyncio
import contextlib
import time

import click

from orchestrator.cli.options import complete_jobs
from orchestrator.cli.output import answer, program, talk
from orchestrator.cli.session import Session, connect
from orchestrator.jobs.errors import GcpctlError, NotFoundError, UnreachableError
from orchestrator.jobs.ids import submission_id
from orchestrator.jobs.job import STUDY, Job
from orchestrator.jobs.logs import LogSlice, artifact_name, of_rank, slice_log
from orchestrator.jobs.states import State

_RECONNECT_S = 0.5


@click.command(no_args_is_help=True)
@click.argument("job", shell_complete=complete_jobs)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends, over all attempts.")
@click.option("--rank", type=click.IntRange(0), help="Only the lines of this worker.")
@click.option("--attempt", type=click.IntRange(1), help="This attempt; the newest when left out.")
@click.option("--tail", type=click.IntRange(1), help="Only the last so many lines.")
def logs(job: str, follow: bool, rank: int | None, attempt: int | None, tail: int | None) -> None:
    """Print a job's log, or follow it until the job ends.

    Lines of workers begin with `[rank N]`. The log of an attempt that has ended is kept with
    the job in MLflow, under `logs/`.

    \b
      gcpctl logs k7x2 -f
      gcpctl logs k7x2 --rank 1 --attempt 1 --tail 50
    """
    session = connect()
    found = session.store.find(job)
    if attempt is not None and attempt > found.attempt:
        raise NotFoundError(f"{found.job_id} has had {found.attempt} attempts, not {attempt}")
    if found.kind == STUDY and found.attempt == 0:
        talk("a study's own log is that of its report; its jobs have logs of their own. See them:")
        talk(f"  {program()} watch {found.job_id}")
        talk(f"  {program()} status --all")
    if follow:
        Follower(session, found, rank, tail).run(attempt)
        return
    if found.attempt == 0 or (attempt in (None, found.attempt) and not found.has_begun):
        talk(f"{found.job_id} has not started yet ({found.reason or found.phase})")
        return
    text = read_log(session, found, attempt or found.attempt)
    lines = list(of_rank(text.splitlines(), rank))
    for line in lines[-tail:] if tail else lines:
        answer(line)


def read_log(session: Session, job: Job, attempt: int) -> str:
    """Return the log of an attempt, from the running driver or from the archive."""
    if attempt == job.attempt and job.state is State.RUNNING:
        with contextlib.suppress(GcpctlError):
            return _from_ray(session, job, attempt)
    try:
        text = session.store.read_artifact(job, artifact_name(attempt)).decode(errors="replace")
        return slice_log(text, job.job_id, attempt, is_own=True)
    except NotFoundError:
        pass
    try:
        return _from_ray(session, job, attempt)
    except NotFoundError as exc:
        raise NotFoundError(
            f"the log of attempt {attempt} of {job.job_id} is lost",
            "the cluster's head was lost with it, before the log could be archived",
        ) from exc


def _driver_of(job: Job, attempt: int) -> str:
    """Return Ray's id of the driver that runs or ran an attempt."""
    newest = attempt == job.attempt
    return job.submission_id if newest else submission_id(job.job_id, attempt)


def _is_own(job: Job, attempt: int) -> bool:
    """Whether the attempt's driver was started for it, not for another job."""
    return _driver_of(job, attempt) == submission_id(job.job_id, attempt)


def _from_ray(session: Session, job: Job, attempt: int) -> str:
    text = session.ray.logs(_driver_of(job, attempt))
    return slice_log(text, job.job_id, attempt, is_own=_is_own(job, attempt))


class Follower:
    """Prints a log while it grows, from attempt to attempt, until the job ends."""

    def __init__(self, session: Session, job: Job, rank: int | None, tail: int | None) -> None:
        self._session = session
        self._job = job
        self._rank = rank
        self._tail = tail
        self._printed = 0
        self._rest = ""

    def run(self, attempt: int | None) -> None:
        """Follow from the given attempt (the newest when None) to the job's end."""
        only_one = attempt is not None
        current = attempt or max(self._job.attempt, 1)
        while True:
            self._refresh()
            if self._job.attempt >= current:
                with contextlib.suppress(GcpctlError):
                    asyncio.run(self._stream(current))
                self._refresh()
            over = self._job.state.is_final or self._job.attempt > current
            if not over:
                time.sleep(_RECONNECT_S)
                continue
            self._print_archived(current)
            if only_one or self._job.attempt <= current:
                break
            current += 1
            self._printed, self._rest = 0, ""
            talk(f"--- attempt {current} ---")
        talk(f"{self._job.job_id} is {self._job.state}: {self._job.reason}".rstrip(": "))

    def _refresh(self) -> None:
        complained = False
        while True:
            try:
                self._job = self._session.store.get(self._job.run_id)
                return
            except UnreachableError as exc:
                if not complained:
                    talk(f"{exc.message}; trying again")
                complained = True
                time.sleep(2 * _RECONNECT_S)

    async def _stream(self, attempt: int) -> None:
        """Print what is new; Ray sends a log from its beginning each time."""
        seen = 0
        job = self._job
        mine = LogSlice(job.job_id, attempt, is_own=_is_own(job, attempt))
        async for piece in self._session.ray.tail(_driver_of(job, attempt)):
            text = mine.feed(piece)
            start = max(self._printed - seen, 0)
            seen += len(text)
            if start < len(text):
                self._printed = seen
                self._print(text[start:])
            if mine.has_ended:
                return  # the driver goes on with other jobs

    def _print_archived(self, attempt: int) -> None:
        """Print what the stream did not bring: Ray may close it early."""
        with contextlib.suppress(NotFoundError):
            text = read_log(self._session, self._job, attempt)
            if len(text) > self._printed:
                self._print(text[self._printed :])
                self._printed = len(text)
        if self._rest:
            self._print("\n")

    def _print(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        chosen = list(of_rank(lines, self._rank))
        if self._tail is not None:
            chosen, self._tail = chosen[-self._tail :], None
        for line in chosen:
            answer(line)
