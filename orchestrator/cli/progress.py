"""How far a long command is: a bar on a terminal, a line now and then elsewhere; on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from orchestrator.cli.output import duration, talk

_LINE_EVERY_S = 10.0
_SHARE_TO_JUDGE_BY = 0.1
"""Before, the start of the processes weighs more than the work."""


class Report(Protocol):
    """Takes how much is done, of how much, and a word about it."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show it."""
        ...


@contextmanager
def progress(label: str, unit: str) -> Iterator[Report]:
    """Show progress while the context lasts; a bar is gone afterwards.

    Args:
        label: What is being done, such as `packing`.
        unit: What is counted, such as `images`.
    """
    if sys.stderr.isatty():
        with _bar(label, unit) as report:
            yield report
    else:
        yield _lines(label, unit)


@contextmanager
def _bar(label: str, unit: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.completed:,}/{task.total:,} " + unit + "{task.fields[note]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=0, note="")

        def report(done: int, total: int, note: str = "") -> None:
            bars.update(task, completed=done, total=total, note=f", {note}" if note else "")

        yield report


def _lines(label: str, unit: str) -> Report:
    begin = time.monotonic()
    last = begin

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _LINE_EVERY_S or not 0 < done < total:
            return
        last = now
        parts = [f"{label}: {done:,} of {total:,} {unit}", *([note] if note else [])]
        if done >= _SHARE_TO_JUDGE_BY * total:
            parts.append(f"about {duration((now - begin) * (total - done) / done)} left")
        talk(", ".join(parts))

    return report
