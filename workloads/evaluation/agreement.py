"""The same data on every rank, or an error that says which rank has others."""

import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from workloads.data.errors import DataError
from workloads.data.peers import Peers
from workloads.worker import distributed

T = TypeVar("T")

_MOST_SHOWN = 80


def build_together(
    build: Callable[[Peers], T],
    facts: Callable[[T], Mapping[str, Any]],
    *,
    rank: int,
    world_size: int,
) -> T:
    """Build on every rank and refuse to go on with what differs between ranks.

    Ranks whose numbers of images differ would wait for each other in vain, and other images under
    the same numbers would count twice or never.

    Args:
        build: Makes the data; may share work among the ranks.
        facts: What must be equal: plain values by names that fit a sentence.
        rank: This worker's number.
        world_size: How many there are.

    Raises:
        DataError: The data are missing or broken, here or on another rank, or they differ.
    """
    built: T | None = None
    error: Exception | None = None
    said: dict[str, Any] = {"host": socket.gethostname()}
    with distributed.patient_gather() as gather:
        try:
            built = build(Peers(rank, world_size, gather))
            said["facts"] = dict(facts(built))
        except Exception as reason:  # told after the others have heard that there is one
            error = reason
            # Kinds that a retry is decided by stay themselves; others need not survive a pickle.
            said["error"] = reason if isinstance(reason, DataError | OSError) else repr(reason)
        views = gather(said)
    if error is not None:
        raise error
    assert built is not None
    for number, view in enumerate(views):
        where = f"rank {number} on {view['host']}"
        if "error" in view:
            raise _failure_elsewhere(where, view["error"])
        for name, value in views[0]["facts"].items():
            if view["facts"][name] != value:
                raise DataError(
                    f"{where} has other data than rank 0 on {views[0]['host']}: {name} "
                    f"{_shorten(view['facts'][name])}, not {_shorten(value)}",
                    "every node must see the same files",
                )
    return built


def _failure_elsewhere(where: str, error: Exception | str) -> Exception:
    if isinstance(error, OSError):
        return OSError(error.errno, f"{where}: {error}")
    if isinstance(error, DataError):
        return DataError(f"{where}: {error.message}", error.hint)
    return DataError(f"{where}: {error}")


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."
