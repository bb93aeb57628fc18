"""The supervisor's decision for one service: pure, so that every case can be tested."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from typing import Any

from cluster.layout import Layout, load_json, save_json
from cluster.processes import Identity
from cluster.services import Patience

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
STABLE_AFTER_S = 60.0


class Action(Enum):
    """What to do about a service now."""

    NOTHING = "nothing"
    START = "start"
    REPLACE = "replace"


@dataclass(frozen=True)
class Record:
    """A service's pid file: its process and its history. Times are seconds since the epoch.

    Attributes:
        pid: Process id; 0 when it was never started.
        born: With `pid`, the process's identity.
        started_at: When this process was started.
        well_at: When it was seen healthy; 0 for not yet. The file may hold an old such moment.
        starts: Starts since the cluster's first `up`.
        failures: Starts in a row that did not lead to a stable service.
        note: Why it was last started, for people.
    """

    pid: int = 0
    born: float = 0.0
    started_at: float = 0.0
    well_at: float = 0.0
    starts: int = 0
    failures: int = 0
    note: str = ""

    @property
    def identity(self) -> Identity | None:
        return Identity(self.pid, self.born) if self.pid > 0 else None

    @property
    def start_after(self) -> float:
        """When a dead service may be started again: at once first, then ever later."""
        if not self.failures:
            return 0.0
        return self.started_at + min(BACKOFF_FIRST_S * 2.0 ** min(self.failures, 10), BACKOFF_MAX_S)


def load_record(layout: Layout, service: str) -> Record:
    """Read a pid file; one that is missing, torn or foreign says: never started."""
    stored: dict[str, Any] = load_json(layout.record(service)) or {}
    try:
        record = Record(**{f.name: stored[f.name] for f in fields(Record)})
        return record if isinstance(record.pid, int) else Record()
    except KeyError:
        return Record()


def save_record(layout: Layout, service: str, record: Record) -> None:
    """Write a pid file in one move."""
    save_json(layout.record(service), asdict(record))


def decide(
    record: Record,
    *,
    alive: bool,
    healthy: bool | None,
    unwell_s: float = 0.0,
    now: float,
    patience: Patience,
) -> tuple[Action, Record]:
    """Choose what to do about a service.

    Args:
        record: Its pid file.
        alive: Whether that very process runs.
        healthy: Whether it answers; None when not asked this time.
        unwell_s: For how long this supervisor has seen it unwell. Not taken from the record:
            clocks are set and laptops sleep, and nobody looked while there was no supervisor.
        now: Seconds since the epoch.
        patience: How long it may be alive and unwell.

    Returns:
        The action, and the record with what was seen.
    """
    if not alive:
        waits = record.started_at <= now < record.start_after  # else the clock was set back
        return (Action.NOTHING if waits else Action.START), record
    if healthy:
        stable = now - record.started_at >= STABLE_AFTER_S
        return Action.NOTHING, replace(
            record, well_at=now, failures=0 if stable else record.failures
        )
    limit_s = patience.later_s if record.well_at else patience.start_s
    if healthy is False and unwell_s > limit_s:
        return Action.REPLACE, record
    return Action.NOTHING, record


def started(record: Record, identity: Identity, now: float, note: str) -> Record:
    """Return the record after a start; the start counts as failed until it proves stable."""
    lasted = bool(record.well_at) and now - record.started_at >= STABLE_AFTER_S
    failures = 0 if lasted or not record.starts else record.failures + 1
    return Record(identity.pid, identity.born, now, 0.0, record.starts + 1, failures, note)
