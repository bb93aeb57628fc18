"""Studies and sweeps as text: one in full, or below their rows in a list of jobs."""

import sys
from collections.abc import Sequence

from orchestrator.cli.output import duration, state_text, table
from orchestrator.jobs.job import Job
from orchestrator.jobs.states import State
from orchestrator.results.progress import (
    CellProgress,
    ReportedCell,
    StudyProgress,
    study_progress,
    trial_rows,
)
from orchestrator.results.status import one_line

CELL_HEADER = ("CELL", "SEEDS", "TOP-1", "NOW")
_BAR = 32
_MOST_TRIALS = 15


def study_page(progress: StudyProgress, *, most: int | None = None) -> str:
    """Return a study: how far it is, and each cell with its seeds.

    Args:
        most: Cells that there is room for, see `cell_table`.
    """
    parent = progress.parent
    question = parent.raw_spec["config"].get("question", "")
    left = progress.seconds_left
    about = f", about {duration(left)} left" if left else ""
    lines = [
        f"{parent.job_id}  {state_text(parent.state.value)}  {one_line(question)}",
        f"{_bar(progress.done, progress.total)} {progress.summary()}{about}",
        "",
        cell_table(progress, most=most),
    ]
    failed = [job for cell in progress.cells for job in cell.trainings if _went_wrong(job)]
    lines += [f"{job.job_id}: {one_line(job.reason)}" for job in failed[:most]]
    return "\n".join(lines)


def cell_table(progress: StudyProgress, *, most: int | None = None) -> str:
    """Return the cells as a table, the baseline first.

    Args:
        most: Of so many, those that run before others, in their order.
    """
    cells = progress.cells
    if most is not None and len(cells) > most:
        rank = {id(cell): (cell.running is None, place) for place, cell in enumerate(cells)}
        kept = {id(cell) for cell in sorted(cells, key=lambda cell: rank[id(cell)])[:most]}
        cells = tuple(cell for cell in cells if id(cell) in kept)
    text = table(CELL_HEADER, [cell_row(cell) for cell in cells])
    more = len(progress.cells) - len(cells)
    return f"{text}\nand {more} more cells" if more else text


def sweep_page(parent: Job, trials: Sequence[Job], *, most: int = _MOST_TRIALS) -> str:
    """Return a sweep: how far it is, and its trials, the best first."""
    config = parent.raw_spec["config"]
    objective = config["objectives"][0]
    done = sum(trial.state.is_final for trial in trials)
    wanted = max(int(config.get("num_trials", 0)), len(trials))
    lines = [
        f"{parent.job_id}  {state_text(parent.state.value)}  {_said_of(parent)}".rstrip(),
        f"{_bar(done, wanted)} {done} of {wanted} trials done",
        "",
        trial_table(
            trials, objective["metric"], highest_first=objective["direction"] == "max", most=most
        ),
    ]
    return "\n".join(lines)


def branches(rows: Sequence[str]) -> list[str]:
    """Return lines as they hang below the row of what they belong to."""
    last, between = ("└", "├") if _takes_marks() else ("`", "|")
    return [f"  {last if n == len(rows) else between} {row}" for n, row in enumerate(rows, 1)]


def trial_table(
    trials: Sequence[Job], metric: str, *, highest_first: bool, most: int = _MOST_TRIALS
) -> str:
    """Return the best trials and those that run, as a table."""
    sign = -1.0 if highest_first else 1.0

    def rank(trial: Job) -> tuple[bool, float]:
        value = trial.metrics.get(metric)
        return value is None, sign * value if value is not None else 0.0

    ordered = sorted(trials, key=rank)
    shown = [
        trial for place, trial in enumerate(ordered) if place < most or trial.state is State.RUNNING
    ]
    text = table(("TRIAL", "STATE", "EPOCH", metric.upper(), "DIFFERS"), trial_rows(shown, metric))
    more = len(ordered) - len(shown)
    return f"{text}\nand {more} more" if more else text


def page(group: Job, jobs: Sequence[Job], *, most: int | None = None) -> str:
    """Return the page of a study or sweep as it stands.

    Args:
        jobs: What belongs to it: its members, or its trials.
        most: Cells or trials that there is room for.
    """
    if group.kind == "tune":
        return sweep_page(group, jobs, most=_MOST_TRIALS if most is None else most)
    return study_page(study_progress(group, jobs), most=most)


def cell_row(cell: CellProgress | ReportedCell) -> tuple[str, ...]:
    """Return a cell as a row under `CELL_HEADER`."""
    name = f"{cell.name} (baseline)" if cell.is_baseline else cell.name
    now = cell.running if isinstance(cell, CellProgress) else None
    return name, cell.marks(plain=not _takes_marks()), cell.top1_text(), _doing(now) if now else ""


def _said_of(sweep: Job) -> str:
    said = "" if sweep.state.is_final else str(sweep.progress.get("text", ""))
    return one_line(sweep.reason or said)


def _doing(job: Job) -> str:
    if job.kind == "eval":
        return f"seed {job.seed}: evaluating" if job.seed is not None else "evaluating"
    epochs = job.raw_spec["config"].get("epochs")
    return f"seed {job.seed}: epoch {job.progress.get('epoch', job.epoch)}/{epochs}"


def _went_wrong(job: Job) -> bool:
    return job.state in (State.FAILED, State.KILLED)


def _bar(done: int, total: int) -> str:
    filled = round(_BAR * done / total) if total else 0
    full, empty = ("█", "░") if _takes_marks() else ("#", "-")
    return full * filled + empty * (_BAR - filled)


def _takes_marks() -> bool:
    """Whether the output can hold more than ASCII."""
    return "utf" in (sys.stdout.encoding or "").lower()
