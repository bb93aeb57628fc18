"""Why an attempt failed, sorted by what a retry can change. Imports no torch."""

import errno
import json
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import filelock

from workloads import durable
from workloads.worker.paths import JobPaths

FailureClass = Literal["user", "infrastructure", "storage", "fenced"]

PRECEDENCE: tuple[FailureClass, ...] = ("infrastructure", "user", "storage", "fenced")
"""When several ranks fail the later wins: a broken connection is the consequence, not the cause."""

_STORAGE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
_INFRASTRUCTURE_ERRNOS = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTUNREACH})
_INFRASTRUCTURE_TYPES = frozenset(
    {"DistBackendError", "DistNetworkError", "DistStoreError", "DistQueueEmptyError"}
)
_INFRASTRUCTURE_TEXTS = (
    "connection closed",
    "connection reset",
    "connection refused",
    "broken pipe",
    "timed out",
    "socket timeout",
    "gloo/transport",
    "nccl error",
    "uncorrectable ecc error",
    "gpu is lost",
    "killed by signal",
    "exited unexpectedly",
)
"""What torch says when a peer, a link, a device or a loader process is gone."""
_TORCH_TYPES = frozenset({"RuntimeError", "AcceleratorError"})
"""By name and not by class: subclasses of ours say what went wrong in words of their own."""


class StorageFullError(Exception):
    """The storage has no room for a checkpoint or a metric; the newest checkpoint is intact."""


class FencedError(Exception):
    """A newer attempt owns the job, so this one may not commit anything."""


class DivergedError(Exception):
    """The loss or a gradient is not finite; no update was made or saved from it."""


class CheckpointError(Exception):
    """A checkpoint that must not be used here; the message prints both sides."""


def classify(exc: BaseException) -> FailureClass:
    """Sort an exception by what a retry can change.

    ``storage`` wants a person to free space, ``fenced`` means a newer attempt runs, after
    ``infrastructure`` a retry may go through, and after ``user`` it would meet the same again.
    """
    chain = list(_causes(exc))
    if any(isinstance(one, FencedError) for one in chain):
        return "fenced"
    if any(isinstance(one, StorageFullError) or _errno(one) in _STORAGE_ERRNOS for one in chain):
        return "storage"
    if isinstance(exc, DivergedError | CheckpointError):
        return "user"
    return "infrastructure" if any(map(_is_infrastructure, chain)) else "user"


def describe_failure(rank: int, exc: BaseException) -> dict[str, Any]:
    """Return why a rank failed, as plain data."""
    return {
        "class": classify(exc),
        "type": type(exc).__name__,
        "message": str(exc),
        "traceback": "".join(traceback.format_exception(exc)),
        "rank": rank,
    }


def weightiest(records: Iterable[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Return the failure that explains the others: a peer's broken connection explains none."""
    return max((record for record in records if record), key=_weight, default=None)


def write_failure(paths: JobPaths, attempt: int, rank: int, exc: BaseException) -> None:
    """Record why a rank failed, unless a rank before it recorded a weightier reason."""
    record = describe_failure(rank, exc)
    path = paths.failure(attempt)
    durable.make_folder(paths.root)
    with filelock.FileLock(path.with_suffix(".lock"), timeout=10):
        before = read_failure(paths, attempt)
        if before is None or _weight(record) > _weight(before):
            durable.write_json(path, record)


def read_failure(paths: JobPaths, attempt: int) -> dict[str, Any] | None:
    """Return the record of an attempt's failure, or None."""
    return read_json(paths.failure(attempt))


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object from a file, or None if there is none that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _causes(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        hidden = None if current.__suppress_context__ else current.__context__
        current = current.__cause__ or hidden


def _errno(exc: BaseException) -> int | None:
    return exc.errno if isinstance(exc, OSError) else None


def _is_infrastructure(exc: BaseException) -> bool:
    if isinstance(exc, ConnectionError | TimeoutError):
        return True
    if _errno(exc) in _INFRASTRUCTURE_ERRNOS or type(exc).__name__ in _INFRASTRUCTURE_TYPES:
        return True
    text = str(exc).lower()
    return type(exc).__name__ in _TORCH_TYPES and any(
        part in text for part in _INFRASTRUCTURE_TEXTS
    )


def _weight(record: dict[str, Any]) -> int:
    return PRECEDENCE.index(record["class"]) if record.get("class") in PRECEDENCE else -1
