"""Short plain lines for people: a worker's standard output becomes the job's log."""

import sys


def say(text: str) -> None:
    """Write one line to the job's log, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
