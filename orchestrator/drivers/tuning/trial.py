"""What a trial is told, and what it says after each epoch; plain data, no torch, no Ray."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orchestrator.drivers.tuning.journal import trial_name
from workloads.config.sweep import Value
from workloads.worker.paths import JobPaths
from workloads.worker.spool import SpoolRow

ReportState = Literal["running", "finished", "stopped", "failed"]

EPOCH_METRIC = "progress/epoch"
"""Marks the rows of epochs among those of steps."""


@dataclass(frozen=True)
class TrialSettings:
    """What all trials of a sweep have in common.

    Attributes:
        job_id: The sweep's.
        root: The sweep's folder.
        base: The config that trials change.
        attempt: Of the sweep; the fence of every trial's folder.
        metric: Of the first objective: a report waits for it.
        workers: Data-parallel workers of a trial; one trains in the trial's own process.
        cpus: Cores, and torch threads, of each worker.
        gpus: GPUs of each worker.
        saves_each_epoch: Every report follows a checkpoint, for a scheduler that pauses trials.
        hands_on_weights: A trial may go on from another one's checkpoint.
    """

    job_id: str
    root: str
    base: dict[str, Any]
    attempt: int
    metric: str
    workers: int = 1
    cpus: int = 1
    gpus: int = 0
    saves_each_epoch: bool = False
    hands_on_weights: bool = False

    @property
    def stop_file(self) -> Path:
        """Its presence asks all trials to save and leave."""
        return JobPaths(Path(self.root)).stop


@dataclass(frozen=True)
class TrialTask:
    """One trial, as it is to be trained now.

    Attributes:
        number: Of the trial.
        values: What the search chose.
        generation: How often it went on from another trial's weights; each has its own folder.
    """

    number: int
    values: dict[str, Value]
    generation: int = 0

    @property
    def name(self) -> str:
        """Such as `t007`."""
        return trial_name(self.number)

    def paths(self, settings: TrialSettings) -> JobPaths:
        """Return the folder that it trains in."""
        return JobPaths(generation_folder(settings, self.name, self.generation))


def generation_folder(settings: TrialSettings, name: str, generation: int) -> Path:
    """Return the folder of a generation of a trial: its own, then one inside for each move."""
    folder = Path(settings.root) / "trials" / name
    return folder / f"g{generation}" if generation else folder


@dataclass(frozen=True)
class Report:
    """What a trial has to say.

    Attributes:
        state: `stopped` was asked to save and leave, and goes on another time.
        rows: Metrics of the epochs since its last word.
        reason: Of a failure, or the result in a word.
        failure_class: As `workloads.worker.failures.classify` has it.
    """

    state: ReportState
    rows: list[SpoolRow] = field(default_factory=list)
    reason: str = ""
    failure_class: str = ""


def only_epochs(rows: list[SpoolRow]) -> list[SpoolRow]:
    """Return the rows of epochs; curves over steps stay in the trial's folder."""
    return [row for row in rows if EPOCH_METRIC in row.metrics]
