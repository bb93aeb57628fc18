"""Files of weights that cannot be used, or not for this network."""

from collections.abc import Sequence

from workloads.models.errors import ModelError

NOT_FOUND = 5
CONFLICT = 6
MOST_LINES = 10


class WeightsError(ModelError):
    """A file of weights that cannot be used as asked; says what to do next."""


def shorten(lines: Sequence[str]) -> str:
    """Return the first ten lines, indented, and how many more there are."""
    shown = [f"  {line}" for line in lines[:MOST_LINES]]
    if len(lines) > MOST_LINES:
        shown.append(f"  and {len(lines) - MOST_LINES} more")
    return "\n".join(shown)
