"""Carry what the workers wrote to the tracking server, off the training path.

Workers only append to files in the job's folder. This thread, in the driver, sends what is
committed. An outage of the server therefore stops nobody: the files are the truth until the
server has taken them, and a point sent twice is stored once, because its time never changes.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from orchestrator.drivers.outcome import say
from orchestrator.jobs.errors import ApiError, GcpctlError, UnreachableError
from orchestrator.jobs.job import TAG_PHASE, TAG_PROGRESS, Job
from orchestrator.jobs.logs import mark
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore, MetricPoint
from workloads.worker.paths import JobPaths
from workloads.worker.spool import read_committed

_T = TypeVar("_T")

_INTERVAL_S = 0.5
_FENCE_INTERVAL_S = 10.0
_SHARED_FENCE_INTERVAL_S = 1.0
_PATIENCE_S = 3600.0
_FENCED_EXIT_STATUS = 75
_MAX_BACKOFF_S = 15.0


class Backoff:
    """Pauses that grow from one second to a quarter of a minute."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def next_s(self) -> float:
        """Return the next pause, in seconds."""
        self._seconds = min(max(2 * self._seconds, 1.0), _MAX_BACKOFF_S)
        return self._seconds

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._seconds = 0.0


def patiently(act: Callable[[], _T], *, seconds: float = _PATIENCE_S) -> _T:
    """Do what needs the server, and wait for it while it is away or in trouble.

    Raises:
        UnreachableError: It was away for longer than `seconds`.
        ApiError: It refused, or was in trouble for longer than that.
    """
    deadline, backoff = time.monotonic() + seconds, Backoff()
    while True:
        try:
            return act()
        except (UnreachableError, ApiError) as exc:
            # A server's own trouble (5xx: a locked database, a full disk) may pass; a refusal not.
            refused = isinstance(exc, ApiError) and exc.status < 500
            if refused or time.monotonic() > deadline:
                raise
            say(f"tracking: {exc.message}; waiting for it")
            time.sleep(backoff.next_s())


class Tracker(threading.Thread):
    """Sends metrics and progress to the store, and the workers' lines to the driver's log.

    Args:
        store: A store of the thread's own.
        job: The job.
        attempt: The attempt that this driver runs; it ends the process when a newer one exists.
        paths: The job's folder.
        working: The job's phase once its workers work.
        at_first_progress: What can wait until then; called in this thread.
        passes_stop_on: The driver runs other jobs too, so it gets no signal for this one: a stop
            that was requested in the store is passed on to the workers.
    """

    def __init__(
        self,
        store: JobStore,
        job: Job,
        attempt: int,
        paths: JobPaths,
        *,
        working: str = "training",
        at_first_progress: Callable[[JobStore, Job], None] | None = None,
        passes_stop_on: bool = False,
    ) -> None:
        super().__init__(name="tracker", daemon=True)
        self._store = store
        self._job = job
        self._attempt = attempt
        self._paths = paths
        self._working = working
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._acknowledged = paths.root / "metrics.sent"
        self._sent = self._sent_before()
        self._progress = ""
        self._phase_said = False
        self._at_first_progress = at_first_progress
        self._passes_stop_on = passes_stop_on
        self._logs = LogTail(paths.root / "logs" / f"attempt-{attempt}")
        self._next_fence_check = 0.0
        self._backoff = Backoff()

    def run(self) -> None:
        """Send until told to end; an unreachable server is tried again, ever more slowly."""
        next_send = 0.0
        while not self._ended.wait(_INTERVAL_S):
            self._copy_logs()
            if time.monotonic() >= next_send:
                next_send = time.monotonic() + (
                    0.0 if self._send_once() else self._backoff.next_s()
                )

    def finish(self) -> bool:
        """Send all that is left; return whether the server took it.

        Waits for a server that is away, for the job's numbers are all that is left of it; not
        for one that answers and will never take them (the run was deleted, the token changed).
        """
        self._ended.set()
        self.join(timeout=30)
        self._copy_logs()
        try:
            patiently(self._send)
        except (GcpctlError, OSError, ValueError) as exc:
            say(f"tracking: {exc}")
            return False
        return True

    def _send_once(self) -> bool:
        """Send what there is; say what went wrong, and go on whatever it was."""
        try:
            self._send()
        except UnreachableError as exc:
            say(f"tracking: {exc.message}; {self._working} goes on")
            return False
        except Exception as exc:
            say(f"tracking: {type(exc).__name__}: {exc}")
            return False
        self._backoff.reset()
        return True

    def _send(self) -> None:
        with self._lock:
            self._check_fence()
            self._send_metrics()
            self._send_progress()

    def _copy_logs(self) -> None:
        # The log must not end the thread that carries the numbers.
        with contextlib.suppress(OSError):
            self._logs.copy_new_lines()

    def _check_fence(self) -> None:
        """End the process when a newer attempt exists: two must never write at once."""
        if time.monotonic() < self._next_fence_check:
            return
        fresh = self._store.get(self._job.run_id)
        interval = _SHARED_FENCE_INTERVAL_S if self._passes_stop_on else _FENCE_INTERVAL_S
        self._next_fence_check = time.monotonic() + interval
        newest = fresh.attempt
        if newest > self._attempt:
            say(f"attempt {newest} has taken over; attempt {self._attempt} ends")
            os._exit(_FENCED_EXIT_STATUS)
        # One that is RUNNING no more was taken back in the moment in which it began.
        unwanted = fresh.stop_requested or fresh.state is not State.RUNNING
        if self._passes_stop_on and unwanted and not self._paths.stop.exists():
            say("asked to stop")
            self._paths.stop.touch()

    def _send_metrics(self) -> None:
        offset = self._sent
        rows, new_offset = read_committed(self._paths.spool, offset)
        if new_offset == offset:
            return
        points: list[MetricPoint] = [
            (key, value, row.time_ms, row.step)
            for row in rows
            for key, value in row.metrics.items()
        ]
        if points:
            self._store.log_metrics(self._job, points)
        self._sent = new_offset
        # Only a hint for the next attempt: a disk too full for it costs nothing.
        with contextlib.suppress(OSError):
            beside = self._acknowledged.with_suffix(".tmp")
            beside.write_text(str(new_offset))
            os.replace(beside, self._acknowledged)

    def _sent_before(self) -> int:
        try:
            return int(self._acknowledged.read_text())
        except (FileNotFoundError, ValueError):
            return 0  # sending all again stores nothing twice

    def _send_progress(self) -> None:
        try:
            text = self._paths.progress.read_text()
        except FileNotFoundError:
            return
        if text == self._progress:
            return
        tags = {TAG_PROGRESS: text}
        if not self._phase_said:
            tags[TAG_PHASE] = self._working
        self._store.set_tags(self._job, tags)
        self._progress = text
        if not self._phase_said and self._at_first_progress:
            self._at_first_progress(self._store, self._job)
        self._phase_said = True


class LogTail:
    """Copies the workers' logs into the driver's, each line marked with its rank."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: dict[Path, int] = {}

    def copy_new_lines(self) -> None:
        """Write the complete lines that have come since the last call."""
        for path in sorted(self._folder.glob("rank-*.log")):
            rank = int(path.stem.removeprefix("rank-"))
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                content = file.read()
            complete = content[: content.rfind(b"\n") + 1]
            self._offsets[path] = self._offsets.get(path, 0) + len(complete)
            for line in complete.decode(errors="replace").splitlines():
                sys.stdout.write(mark(rank, line) + "\n")
        sys.stdout.flush()
