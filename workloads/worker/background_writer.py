"""One write at a time beside the training."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

NICENESS = 5


class BackgroundWriter:
    """Runs writes in a thread, one after another, each begun when the one before is through.

    What a write raises comes out of the next call here, as the same exception. A process that
    ends waits for the write under way; one that is killed leaves what a kill in a write leaves.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "checkpoint", initializer=_yield_to_training)
        self._under_way: Future[None] | None = None

    def start(self, write: Callable[[], None]) -> None:
        """Begin a write; `wait` comes before it.

        Raises:
            RuntimeError: One is under way.
        """
        if self._under_way is not None:
            raise RuntimeError("a write is under way; wait for it before the next one")
        self._under_way = self._executor.submit(write)

    @property
    def is_writing(self) -> bool:
        """Whether a write is under way."""
        return self._under_way is not None and not self._under_way.done()

    def wait(self) -> float:
        """Wait for the write under way, if there is one; return the seconds that it took.

        Raises:
            Exception: What the write raised.
        """
        under_way, self._under_way = self._under_way, None
        if under_way is None:
            return 0.0
        start_s = time.perf_counter()
        under_way.result()
        return time.perf_counter() - start_s

    def poll(self) -> None:
        """Raise what the last write raised, if it is through; never waits."""
        if self._under_way is not None and self._under_way.done():
            self.wait()


def _yield_to_training() -> None:
    """Let this thread compute where cores are idle.

    Without it the scheduler puts it on the training's core now and then while another is free.
    """
    if sys.platform == "linux":  # where a thread has a priority of its own
        with contextlib.suppress(OSError):
            own = os.getpriority(os.PRIO_PROCESS, 0)
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, max(own, NICENESS))
