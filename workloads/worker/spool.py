"""Metrics between training and tracking: each recorded once, whatever crashes between.

``metrics.jsonl`` holds rows ``{"step", "at", "time_ms", "metrics"}`` and marks ``{"commit": n}``.
`step` is the step shown to people (the epoch for epoch metrics), `at` the optimizer step at which
a row was produced. A mark says that a checkpoint of optimizer step n is safe, and that no row
before it will be produced again: only those go to tracking. Bytes up to the newest mark never
change, so a reader's offset stays good. Imports no torch.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads import durable

_MARK_PREFIX = b'{"commit":'


@dataclass(frozen=True)
class SpoolRow:
    """Metrics of one step."""

    step: int
    at: int
    time_ms: int
    metrics: dict[str, float]


class SpoolWriter:
    """Appends rows and marks; rows stay in memory until they are taken for a checkpoint.

    The order around a checkpoint is `take`, `sync`, save the checkpoint, `commit`. So every row up
    to a checkpoint is on the device before it, and a crash at any point leaves rows that `open` can
    sort into kept and cut by their `at`. `append` and `take` belong to the training, `sync` and
    `commit` to whoever writes the checkpoint, which may be another thread: rows appended after
    `take` stay in memory, so that nothing lies between a checkpoint's rows and its mark.
    """

    def __init__(self, path: Path, committed: int) -> None:
        # Held open: after a newer attempt replaced the file, our lines go where nobody reads.
        self._handle = path.open("ab", buffering=0)
        self._committed = self._taken = committed
        self._lines: list[tuple[int, bytes]] = []

    @classmethod
    def open(cls, path: Path, resume_at: int) -> "SpoolWriter":
        """Repair a spool and continue it from a checkpoint.

        Args:
            path: The spool; it is made if missing.
            resume_at: The optimizer step of the checkpoint that training goes on from.
        """
        data = path.read_bytes() if path.exists() else b""
        end, committed = _last_mark(data)
        kept = b"".join(_rows_until(data[end:], resume_at))
        if kept:
            # The checkpoint was committed, the crash came before its mark.
            kept += _mark(resume_at)
            committed = resume_at
        # A new file even if nothing is cut: it fences a writer of an older attempt.
        durable.write_file(path, data[:end] + kept)
        return cls(path, committed)

    def append(self, row: SpoolRow) -> None:
        """Take up a row, unless a fallback to an older checkpoint made it a second time."""
        if row.at <= self._taken:
            return
        metrics = {key: _encode(value) for key, value in row.metrics.items()}
        line = {"step": row.step, "at": row.at, "time_ms": row.time_ms, "metrics": metrics}
        self._lines.append((row.at, json.dumps(line).encode() + b"\n"))

    def take(self, until: int) -> bytes:
        """Return the rows of a checkpoint of step `until`; later ones wait for the next."""
        ready = b"".join(line for at, line in self._lines if at <= until)
        self._lines = [(at, line) for at, line in self._lines if at > until]
        self._taken = max(self._taken, until)
        return ready

    def sync(self, rows: bytes) -> None:
        """Bring rows to the device; call it before their checkpoint is committed."""
        if rows:
            self._write(rows)

    def commit(self, at: int) -> None:
        """Release the rows to tracking; call it after the checkpoint of step `at` is committed."""
        if at > self._committed:
            self._write(_mark(at))
            self._committed = at

    def close(self) -> None:
        """Let go of the file; rows that were not synced are dropped."""
        self._handle.close()

    def _write(self, data: bytes) -> None:
        start = os.fstat(self._handle.fileno()).st_size
        try:
            durable.write(self._handle, data)
            durable.sync(self._handle)
        except OSError:
            os.ftruncate(self._handle.fileno(), start)  # no half line before the next one
            raise


def make_row(step: int, at: int, metrics: Mapping[str, float]) -> SpoolRow:
    """Return a row stamped with the present time."""
    now_ms = time.time_ns() // 1_000_000
    return SpoolRow(step=step, at=at, time_ms=now_ms, metrics=dict(metrics))


def read_committed(path: Path, offset: int) -> tuple[list[SpoolRow], int]:
    """Return rows that are safe to send to tracking, and where to read on.

    Args:
        path: The spool; it may be missing, or grow meanwhile.
        offset: 0, or what the last call returned.
    """
    try:
        with path.open("rb") as handle:
            handle.seek(offset)
            data = handle.read()
    except FileNotFoundError:
        return [], offset
    end, _ = _last_mark(data)
    rows = [_parse(line) for line in data[:end].splitlines(keepends=True)]
    return [row for row in rows if row is not None], offset + end


def _last_mark(data: bytes) -> tuple[int, int]:
    """Return where the last complete mark ends, and its step; (0, 0) without one."""
    end = len(data)
    while (start := data.rfind(_MARK_PREFIX, 0, end)) >= 0:
        newline = data.find(b"\n", start)
        if newline >= 0 and (start == 0 or data[start - 1 : start] == b"\n"):
            try:
                return newline + 1, int(json.loads(data[start:newline])["commit"])
            except (ValueError, KeyError, TypeError):
                pass
        end = start
    return 0, 0


def _rows_until(data: bytes, resume_at: int) -> list[bytes]:
    lines = []
    for line in data.splitlines(keepends=True):
        row = _parse(line)
        if row is None or row.at > resume_at:
            break
        lines.append(line)
    return lines


def _parse(line: bytes) -> SpoolRow | None:
    """Return the row in a line; None for a mark and for anything torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        value: dict[str, Any] = json.loads(line)
        metrics = {str(key): float(number) for key, number in value["metrics"].items()}
        return SpoolRow(int(value["step"]), int(value["at"]), int(value["time_ms"]), metrics)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _mark(at: int) -> bytes:
    return _MARK_PREFIX + f" {at}}}\n".encode()


def _encode(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(float(value))
