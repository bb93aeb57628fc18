"""The memory of a sweep: every trial and every epoch of it, in one file that only grows.

``journal.jsonl`` holds a line per event: eight digits of CRC-32, a blank, JSON. A line is on the
device before anything follows from it, so the next attempt of a sweep that was killed at any point
knows which trials there are, with which values, what they came to, and which were under way.
A kill in the middle of a line leaves half of it, which is cut off; a line whose digits are wrong is
left out. Ray Tune's own pickles are written in place and are never read.
"""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from workloads import durable
from workloads.config.sweep import Value
from workloads.worker.ownership import Ownership
from workloads.worker.spool import SpoolRow

TrialEnd = Literal["finished", "pruned", "failed"]

_DIGITS = 8


@dataclass
class Trial:
    """What is known of one trial.

    Attributes:
        number: From 0, in the order of creation.
        values: What the search chose; in population based training the newest.
        created_ms: When it was made, in milliseconds since 1970.
        rows: Metrics of its epochs, the oldest first.
        epoch: Epochs reported.
        generation: How often it went on from another trial's weights.
        end: None while it is to be trained further.
        reason: Why it ended as it did.
        ended_ms: When it ended.
        seconds: Time that it held its workers, in this and earlier attempts.
    """

    number: int
    values: dict[str, Value]
    created_ms: int
    rows: list[SpoolRow] = field(default_factory=list)
    epoch: int = 0
    generation: int = 0
    end: TrialEnd | None = None
    reason: str = ""
    ended_ms: int = 0
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Its name within the sweep, such as `t007`; also that of its folder."""
        return trial_name(self.number)

    @property
    def metrics(self) -> dict[str, float]:
        """The newest value of each metric."""
        newest: dict[str, float] = {}
        for row in self.rows:
            newest |= row.metrics
        return newest

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """Return (epoch, value) of a metric wherever it was recorded."""
        return [(row.step, row.metrics[metric]) for row in self.rows if metric in row.metrics]


def trial_name(number: int) -> str:
    """Return the name of a trial."""
    return f"t{number:03d}"


class Journal:
    """Reads what was, and writes what is.

    Args:
        path: The file; it is made if missing.
        ownership: Of the sweep's folder. An attempt that was replaced writes nothing.

    Attributes:
        trials: By number.
        damaged: Lines that were left out.
    """

    def __init__(self, path: Path, ownership: Ownership) -> None:
        self._path = path
        self._ownership = ownership
        self.trials: dict[int, Trial] = {}
        self.damaged = 0
        durable.make_folder(path.parent)
        data = path.read_bytes() if path.exists() else b""
        end = data.rfind(b"\n") + 1
        for line in data[:end].splitlines():
            self._read(line)
        with ownership.commit():
            # A new file even if nothing is cut: what an older attempt writes, nobody reads.
            durable.write_file(path, data[:end])
        self._handle = path.open("ab", buffering=0)

    @property
    def open_trials(self) -> list[Trial]:
        """Trials that have not ended, in the order of creation."""
        return [self.trials[n] for n in sorted(self.trials) if self.trials[n].end is None]

    @property
    def num_ended(self) -> int:
        """How many trials have ended."""
        return sum(trial.end is not None for trial in self.trials.values())

    def create(self, number: int, values: Mapping[str, Value], *, time_ms: int) -> Trial:
        """Record a new trial.

        Raises:
            ValueError: There is one of that number.
        """
        if number in self.trials:
            raise ValueError(f"{trial_name(number)} exists already")
        self._append(
            {"event": "created", "trial": number, "values": dict(values), "time_ms": time_ms}
        )
        return self.trials[number]

    def report(
        self,
        number: int,
        rows: Sequence[SpoolRow],
        *,
        values: Mapping[str, Value],
        generation: int,
        seconds: float,
    ) -> list[SpoolRow]:
        """Record what a trial reported since its last word; return what was new of it.

        A trial that resumes from a checkpoint may repeat epochs, with the numbers they had.

        Args:
            values: What it trains with.
            generation: How often it went on from another trial's weights.
            seconds: Time that it has held its workers since the last report.
        """
        trial = self.trials[number]
        moved = generation != trial.generation
        fresh = [row for row in rows if moved or row.step > trial.epoch]
        if fresh or moved or seconds:
            event: dict[str, Any] = {
                "event": "reported",
                "trial": number,
                "seconds": round(seconds, 3),
                "rows": [
                    {"step": r.step, "at": r.at, "time_ms": r.time_ms, "metrics": r.metrics}
                    for r in fresh
                ],
            }
            if moved:
                event |= {"generation": generation, "values": dict(values)}
            self._append(event)
        return fresh

    def end(self, number: int, end: TrialEnd, *, reason: str, time_ms: int) -> None:
        """Record that a trial is through."""
        self._append(
            {"event": "ended", "trial": number, "end": end, "reason": reason, "time_ms": time_ms}
        )

    def close(self) -> None:
        """Let go of the file."""
        self._handle.close()

    def _append(self, event: dict[str, Any]) -> None:
        text = json.dumps(event, separators=(",", ":")).encode()
        with self._ownership.commit():
            start = self._path.stat().st_size
            try:
                durable.write(self._handle, b"%08x %s\n" % (zlib.crc32(text), text))
                durable.sync(self._handle)
            except OSError:
                self._handle.truncate(start)  # no half line before the next one
                raise
        self._take(event)

    def _read(self, line: bytes) -> None:
        digits, _, text = line.partition(b" ")
        try:
            if len(digits) != _DIGITS or int(digits, 16) != zlib.crc32(text):
                raise ValueError("its digits are wrong")
            self._take(json.loads(text))
        except (ValueError, KeyError, TypeError):
            self.damaged += 1

    def _take(self, event: dict[str, Any]) -> None:
        take: Callable[[dict[str, Any]], None] = {
            "created": self._take_created,
            "reported": self._take_reported,
            "ended": self._take_ended,
        }[event["event"]]
        take(event)

    def _take_created(self, event: dict[str, Any]) -> None:
        number = int(event["trial"])
        self.trials[number] = Trial(number, dict(event["values"]), int(event["time_ms"]))

    def _take_reported(self, event: dict[str, Any]) -> None:
        trial = self.trials[int(event["trial"])]
        rows = [SpoolRow(**row) for row in event["rows"]]
        if "generation" in event:
            trial.generation, trial.values = int(event["generation"]), dict(event["values"])
            # It goes on from another trial's epoch, which may be an earlier one.
            first = min((row.step for row in rows), default=trial.epoch + 1)
            trial.rows = [row for row in trial.rows if row.step < first]
        trial.rows += rows
        trial.epoch = max((row.step for row in trial.rows), default=trial.epoch)
        trial.seconds += float(event["seconds"])

    def _take_ended(self, event: dict[str, Any]) -> None:
        trial = self.trials[int(event["trial"])]
        trial.end, trial.reason = event["end"], str(event["reason"])
        trial.ended_ms = int(event["time_ms"])
