"""How far a study or a sweep is: its jobs by cell and seed, or its trials."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.jobs.job import PREFIX, TAG_EVALUATED, Job, member_tag
from orchestrator.jobs.states import State

TAG_BASELINE_CELL = PREFIX + "baseline_cell"
TAG_PRUNED = PREFIX + "pruned"
GROUP_KINDS = ("ablation", "tune")
"""Kinds of jobs that others belong to."""
_MARKS = {
    State.SCHEDULED: "·",
    State.RUNNING: "▶",
    State.FINISHED: "✓",
    State.FAILED: "✗",
    State.KILLED: "■",
}
_LETTERS = {
    State.SCHEDULED: ".",
    State.RUNNING: "R",
    State.FINISHED: "F",
    State.FAILED: "X",
    State.KILLED: "K",
}


@dataclass(frozen=True)
class CellProgress:
    """The trainings of one cell, by seed, and their evaluations.

    Attributes:
        evaluations: By the id of the training that they judge; the newest of each.
        top1: Of what has finished, in percent: of the evaluation, else of the last validation.
    """

    name: str
    is_baseline: bool
    trainings: tuple[Job, ...]
    evaluations: dict[str, Job]
    top1: tuple[float, ...]

    @property
    def running(self) -> Job | None:
        """A job of it that runs now."""
        jobs = (*self.trainings, *self.evaluations.values())
        return next((job for job in jobs if job.state is State.RUNNING and job.has_begun), None)

    def marks(self, *, plain: bool = False) -> str:
        """Return one mark per seed: queued, running, finished, failed, stopped."""
        return _marks([self._state(job) for job in self.trainings], plain=plain)

    def _state(self, training: Job) -> State:
        """Return the state of a training together with its evaluation."""
        judged = self.evaluations.get(training.job_id)
        if training.state is not State.FINISHED or judged is None:
            return _shown(training)
        return judged.state if judged.state.is_final else State.RUNNING

    def top1_text(self) -> str:
        """Return `98.61 ± 0.74`, or `-` where nothing has finished."""
        return _mean(self.top1)


@dataclass(frozen=True)
class ReportedCell:
    """A cell as the report of its study tells of it.

    Attributes:
        states: Of its trainings, by seed; FAILED also where the evaluation did.
        top1: Of what has finished, in percent.
    """

    name: str
    is_baseline: bool
    states: tuple[State, ...]
    top1: tuple[float, ...]

    def marks(self, *, plain: bool = False) -> str:
        """Return one mark per seed."""
        return _marks(self.states, plain=plain)

    def top1_text(self) -> str:
        """Return `98.61 ± 0.74`, or `-` where nothing has finished."""
        return _mean(self.top1)


@dataclass(frozen=True)
class StudyProgress:
    """A study as it stands."""

    parent: Job
    cells: tuple[CellProgress, ...]
    counts: dict[State, int]
    reused: int
    seconds_left: float | None

    @property
    def total(self) -> int:
        """Jobs whose results it uses."""
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        """Jobs that have ended, however they did."""
        return sum(count for state, count in self.counts.items() if state.is_final)

    def summary(self) -> str:
        """Return `12 of 48 jobs done, 2 running, 1 failed`."""
        parts = [f"{self.done} of {self.total} jobs done"]
        for state, word in ((State.RUNNING, "running"), (State.FAILED, "failed")):
            if self.counts.get(state):
                parts.append(f"{self.counts[state]} {word}")
        if self.reused:
            parts.append(f"{self.reused} from elsewhere")
        return ", ".join(parts)


def study_progress(parent: Job, members: Sequence[Job]) -> StudyProgress:
    """Return how far a study is.

    Args:
        parent: The study's own job.
        members: All jobs whose results it uses, see `JobStore.members`.
    """
    tag = member_tag(parent.job_id)
    baseline = parent.tags.get(TAG_BASELINE_CELL, "")
    by_cell: dict[str, list[Job]] = {}
    for job in members:
        by_cell.setdefault(job.tags.get(tag, job.cell), []).append(job)
    names = sorted(by_cell, key=lambda name: name != baseline)
    counts = {state: sum(_shown(job) is state for job in members) for state in State}
    return StudyProgress(
        parent=parent,
        cells=tuple(_cell(name, by_cell[name], is_baseline=name == baseline) for name in names),
        counts={state: count for state, count in counts.items() if count},
        reused=sum(job.group != parent.job_id for job in members),
        seconds_left=_seconds_left(members),
    )


def _shown(job: Job) -> State:
    """Return a job's state as people mean it: one handed to a driver that is busy still waits."""
    waits = job.state is State.RUNNING and not job.has_begun
    return State.SCHEDULED if waits else job.state


def reported_cells(report: bytes) -> tuple[ReportedCell, ...]:
    """Return the cells of a study that has ended, from its report alone.

    Args:
        report: Its `comparison.json`.

    Raises:
        ValueError: It is damaged, or of another version.
    """
    try:
        return tuple(_reported(cell) for cell in json.loads(report)["comparison"]["cells"])
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"the report has no {exc}") from exc


def _reported(cell: dict[str, Any]) -> ReportedCell:
    trainings = sorted(cell["trainings"], key=lambda training: training["seed"] or 0)
    # A report has no column of evaluations where there was none.
    found = [(t, t["values"].get("eval/top1", t["values"].get("val/top1"))) for t in trainings]
    return ReportedCell(
        name=cell["name"],
        is_baseline=cell["is_baseline"],
        states=tuple(
            State.FAILED if t["state"] == State.FINISHED and top1 is None else State(t["state"])
            for t, top1 in found
        ),
        top1=tuple(top1 for t, top1 in found if t["counted"] and top1 is not None),
    )


def _marks(states: Iterable[State], *, plain: bool) -> str:
    table = _LETTERS if plain else _MARKS
    return "".join(table[state] for state in states)


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def trial_rows(trials: Iterable[Job], metric: str) -> list[tuple[str, ...]]:
    """Return a sweep's trials as rows: name, state, epoch, value, what sets it apart."""
    rows: list[tuple[str, ...]] = []
    for trial in trials:
        value = trial.metrics.get(metric)
        pruned = trial.tags.get(TAG_PRUNED) == "true"
        rows.append(
            (
                trial.job_id,
                "PRUNED" if pruned else trial.state.value,
                str(trial.epoch or "-"),
                f"{value:.4g}" if value is not None else "-",
                trial.cell,
            )
        )
    return rows


def _cell(name: str, jobs: Sequence[Job], *, is_baseline: bool) -> CellProgress:
    trainings = sorted(
        (job for job in jobs if job.kind == "train"), key=lambda job: (job.seed or 0, job.start_ms)
    )
    judged = {job.tags.get(TAG_EVALUATED, ""): job for job in jobs if job.kind == "eval"}
    found = (_top1(job, judged.get(job.job_id)) for job in trainings)
    return CellProgress(
        name=name,
        is_baseline=is_baseline,
        trainings=tuple(trainings),
        evaluations=judged,
        top1=tuple(value for value in found if value is not None),
    )


def _top1(training: Job, judged: Job | None) -> float | None:
    if judged is not None and judged.state is State.FINISHED:
        return judged.metrics.get("eval/top1")
    return training.metrics.get("val/top1") if training.state is State.FINISHED else None


def _seconds_left(members: Sequence[Job]) -> float | None:
    """Return how long the rest takes if it goes on as it did; None before anything has ended."""
    left = 0.0
    drivers = {job.submission_id for job in members if job.state is State.RUNNING}
    for kind in ("train", "eval"):
        of_kind = [job for job in members if job.kind == kind]
        took = [
            (job.end_ms - job.attempt_launch_ms) / 1000
            for job in of_kind
            if job.state is State.FINISHED and job.end_ms and job.attempt_launch_ms
        ]
        waiting = sum(not job.state.is_final for job in of_kind)
        if waiting and not took:
            return None
        left += waiting * statistics.median(took) if waiting else 0.0
    return left / max(len(drivers), 1)
