"""Work on many pieces in several processes, stopped in good order by Ctrl-C.

The processes are spawned, not forked: libraries for storage keep threads that do not survive a
fork. They leave the interrupt to the parent and end with it, however it ends.
"""

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for_end
from typing import Any, Protocol, TypeVar

from workloads.data.errors import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")

_POLL_S = 0.25
_AHEAD = 4
"""Tasks for each process that wait in line: waiting on thousands at once takes its own time."""


class Stopped(Exception):
    """The work was called off while a piece was under way."""


class Tick(Protocol):
    """Counts units of work that are done; raises `Stopped` when the work is called off."""

    def __call__(self, count: int = 1) -> None:
        """Add `count` to what is done."""
        ...


def usable_cpus() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_processes(
    work: Callable[[Task, Tick], Result],
    tasks: Sequence[Task],
    *,
    workers: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Result]:
    """Yield `work(task, tick)` of every task, in the order in which they end.

    Args:
        work: A function of a module, so that other processes can import it.
        workers: Processes; with one, this process does the work itself.
        progress: Called with the units done so far, a few times a second.

    Raises:
        DataError: If a process was ended from outside.
        Exception: The first that `work` raises; pieces not yet begun are left, and those under
            way end at their next tick.
    """
    if workers <= 1 or len(tasks) <= 1:
        yield from _in_this_process(work, tasks, progress)
        return
    context = multiprocessing.get_context("spawn")
    counter, called_off = context.Value("q", 0), context.Event()
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)),
        mp_context=context,
        initializer=_begin,
        initargs=(counter, called_off),
    )
    try:
        waiting = iter(tasks)
        with _interrupts_held():
            pending = _submit(pool, work, itertools.islice(waiting, _AHEAD * workers))
        while pending:
            ended, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            pending |= _submit(pool, work, itertools.islice(waiting, len(ended)))
            progress(counter.value)
            for future in ended:
                yield future.result()
    except BrokenProcessPool:
        raise DataError(
            "one of the processes that read images was ended from outside",
            "most often memory ran out: try fewer with --workers",
        ) from None
    finally:
        called_off.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor, work: Callable[[Task, Tick], Result], tasks: Iterable[Task]
) -> "set[Future[Result]]":
    return {pool.submit(_run, work, task) for task in tasks}


def _in_this_process(
    work: Callable[[Task, Tick], Result], tasks: Sequence[Task], progress: Callable[[int], None]
) -> Iterator[Result]:
    done = 0

    def tick(count: int = 1) -> None:
        nonlocal done
        done += count
        progress(done)

    for task in tasks:
        yield work(task, tick)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let processes begin without Ctrl-C, which would meet them amid their imports."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_counter: Any = None
_called_off: Any = None


def _begin(counter: Any, called_off: Any) -> None:
    """Prepare a process of the pool."""
    global _counter, _called_off
    _counter, _called_off = counter, called_off
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_end([parent.sentinel])
        os._exit(1)


def _run(work: Callable[[Any, Tick], Any], task: Any) -> Any:
    _tick(0)
    return work(task, _tick)


def _tick(count: int = 1) -> None:
    if _called_off.is_set():
        raise Stopped
    with _counter.get_lock():
        _counter.value += count
