"""Which attempt of a job may commit: the fence between an old attempt and a newer one."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import filelock

from workloads import durable
from workloads.worker.failures import FencedError, read_json
from workloads.worker.paths import JobPaths

LOCK_TIMEOUT_S = 60.0


class Ownership:
    """The claim of one attempt on a job's folder.

    A partition or a stopped process can leave an old attempt alive beside a newer one. Whatever
    an attempt commits, it commits inside `commit`, which looks again who owns the job.

    Args:
        paths: The job's files.
        attempt: This attempt's number; the controller counts it up before each launch.
    """

    def __init__(self, paths: JobPaths, attempt: int) -> None:
        self.paths = paths
        self.attempt = attempt

    def claim(self) -> None:
        """Become the owner.

        Raises:
            FencedError: A newer attempt owns the job already.
        """
        durable.make_folder(self.paths.root)
        with self.commit():
            owner = {
                "attempt": self.attempt,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started_ms": time.time_ns() // 1_000_000,
            }
            durable.write_json(self.paths.owner, owner)

    @contextmanager
    def commit(self) -> Iterator[None]:
        """Hold the job's lock for a commit, after a look at the owner."""
        with filelock.FileLock(self.paths.owner_lock, timeout=LOCK_TIMEOUT_S):
            self.check()
            yield

    def check(self) -> None:
        """Raise FencedError if a newer attempt owns the job."""
        owner = read_json(self.paths.owner)
        if owner is not None and int(owner["attempt"]) > self.attempt:
            raise FencedError(
                f"attempt {self.attempt} of {self.paths.job_id} was replaced by attempt "
                f"{owner['attempt']} on {owner.get('host', '?')}; it commits nothing any more"
            )
