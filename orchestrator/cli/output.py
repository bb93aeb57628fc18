"""All text that commands write: answers on stdout, talk on stderr."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

_STATE_COLOURS = {
    "SCHEDULED": "cyan",
    "RUNNING": "blue",
    "FINISHED": "green",
    "FAILED": "red",
    "KILLED": "yellow",
}


def answer(text: str = "") -> None:
    """Write a line of the answer."""
    click.echo(text)


def talk(text: str) -> None:
    """Write a line that is about the answer, not part of it."""
    click.echo(text, err=True)


def answer_json(value: Any) -> None:
    """Write the answer as JSON."""
    click.echo(json.dumps(value, indent=2))


def program() -> str:
    """Return how a person calls this program: `gcpctl`, or `./gcpctl` in a checkout."""
    return os.environ.get("GCPCTL_PROGRAM", "gcpctl")


def is_terminal() -> bool:
    """Whether a person watches stdout and it can be redrawn."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def wants_colour() -> bool:
    """Whether colour is welcome: on a terminal, unless NO_COLOR says otherwise."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def state_text(state: str) -> str:
    """Return a job state, coloured where colour is welcome."""
    return click.style(state, fg=_STATE_COLOURS.get(state)) if wants_colour() else state


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None) -> str:
    """Return rows in aligned columns; the last column is cut where a terminal ends."""
    if width is None and is_terminal():
        import shutil

        width = shutil.get_terminal_size().columns
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(click.unstyle(row[i])) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        line = "  ".join(_pad(cell, widths[i]) for i, cell in enumerate(row[:-1]))
        last = row[-1]
        room = None if width is None else width - len(click.unstyle(line)) - 2
        if room is not None and len(last) > room >= 8:
            last = last[: room - 1] + "…"
        lines.append(f"{line}  {last}".rstrip() if line else last)
    return "\n".join(lines)


def _pad(cell: str, width: int) -> str:
    return cell + " " * (width - len(click.unstyle(cell)))


def duration(seconds: float) -> str:
    """Return a duration as people say it: `42 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    total = int(max(seconds, 0))
    for unit, name, smaller, small_name in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if total >= unit:
            rest = total % unit // smaller
            return f"{total // unit} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{total} s"
