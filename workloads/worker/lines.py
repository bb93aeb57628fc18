"""Short plain lines for people: a worker's standard output becomes the job's log."""

import contextlib
import sys


def say(text: str) -> None:
    """Write one line to the job's log, at once; a log that cannot be written ends no training."""
    with contextlib.suppress(OSError):
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
