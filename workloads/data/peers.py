"""The ranks that build the same data, as the data layer sees them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _alone(value: Any) -> list[Any]:
    return [value]


@dataclass(frozen=True)
class Peers:
    """Which share of the work is this rank's, and how the ranks tell each other what they found.

    A source that uses `gather` calls it equally often on every rank, whatever goes wrong on one.

    Attributes:
        gather: Return every rank's value in the order of ranks, on every rank.
    """

    rank: int = 0
    world_size: int = 1
    gather: Callable[[Any], list[Any]] = _alone


ALONE = Peers()
