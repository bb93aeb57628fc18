"""`gcpctl status --tree`: what hangs below the rows of studies and sweeps.

Reading a run costs the tracking server milliseconds, whatever is wanted of it, so a list of large
studies reads few: of those that have ended only what their own run and report say, and of the
larger active ones what runs.
"""

import math
from collections.abc import Sequence
from typing import Any

from orchestrator.cli.group_page import (
    CELL_HEADER,
    branches,
    cell_row,
    cell_table,
    page,
    trial_table,
)
from orchestrator.cli.output import program, table
from orchestrator.jobs.errors import ApiError, NotFoundError
from orchestrator.jobs.job import TAG_MEMBERS, Job
from orchestrator.jobs.store import JobStore
from orchestrator.results.progress import GROUP_KINDS, reported_cells, study_progress

NEWEST = 3
"""Studies and sweeps that have ended of which a list shows more than the row."""
_MOST_RUNS = 120
"""Runs that a list reads in all, besides those that run."""
_RUNNING = "attributes.status = 'RUNNING'"
_REPORT = "report/comparison.json"


def whole(store: JobStore, group: Job) -> list[str]:
    """Return all cells of a study, or the trials of a sweep, as lines below its row."""
    if group.kind not in GROUP_KINDS:
        return []
    experiments = [group.experiment_id]
    jobs = (
        store.trials(group.job_id, experiments=experiments)
        if group.kind == "tune"
        else store.members(group.job_id)
    )
    return branches(page(group, jobs).split("\n\n", 1)[1].split("\n")[1:])


class JobTree:
    """Lines below the rows of a list of jobs, the newest first, within bounds."""

    def __init__(self, store: JobStore, experiments: Sequence[str]) -> None:
        self._store = store
        self._experiments = list(experiments)
        self._runs_left, self._ended_left = _MOST_RUNS, NEWEST
        self._left_out = 0

    def below(self, group: Job) -> list[str]:
        """Return the lines below a job's row; those of one that is left out are none."""
        if group.kind not in GROUP_KINDS:
            return []
        if group.state.is_final:
            if not self._ended_left:
                self._left_out += 1
                return []
            self._ended_left -= 1
            return branches(self._ended(group))
        return branches(self._active(group))

    def note(self) -> str:
        """Return what to say of the groups that were left out; empty if none was."""
        if not self._left_out:
            return ""
        return (
            f"of {self._left_out} more that have ended nothing is shown; "
            f"of one: {program()} status --tree JOB"
        )

    def _ended(self, group: Job) -> list[str]:
        if group.kind == "tune":
            return _result_of_sweep(group.result)
        try:
            cells = reported_cells(self._store.read_artifact(group, _REPORT))
        except (NotFoundError, ApiError, ValueError):  # stopped or failed before its report
            return self._active(group)
        return table(CELL_HEADER, [cell_row(cell) for cell in cells]).split("\n")[1:]

    def _active(self, group: Job) -> list[str]:
        also, rest = "", []
        if self._size(group) > self._runs_left:
            also = _RUNNING
            rest = [f"only what runs; all: {program()} status --tree {group.job_id}"]
        if group.kind == "tune":
            found = self._store.trials(group.job_id, experiments=[group.experiment_id], also=also)
            rows = _trials(group, found)
        else:
            found = self._store.members(group.job_id, experiments=self._experiments, also=also)
            rows = cell_table(study_progress(group, found)).split("\n")[1:]
        self._runs_left -= 0 if also else len(found)
        return rows + rest

    def _size(self, group: Job) -> int:
        """Return how many runs belong to a group; right after the submit of a study, a guess."""
        config = group.raw_spec["config"]
        if group.kind == "tune":
            return int(config.get("num_trials", 0))
        if group.tags.get(TAG_MEMBERS):
            return int(group.tags[TAG_MEMBERS])
        levels = [len(factor.get("levels", ())) for factor in config.get("factors", {}).values()]
        cells = math.prod(levels) if config.get("mode") in ("grid", "pairs") else sum(levels)
        per_seed = 1 if config.get("evaluate") is None else 2
        return cells * len(config.get("seeds", ())) * per_seed


def _trials(group: Job, trials: Sequence[Job]) -> list[str]:
    objective = group.raw_spec["config"]["objectives"][0]
    highest_first = objective["direction"] == "max"
    text = trial_table(trials, objective["metric"], highest_first=highest_first)
    return text.split("\n")[1:]


def _result_of_sweep(found: dict[str, Any]) -> list[str]:
    """Return the best trial, and the front of several objectives, as rows."""
    trials = found.get("front") or ([found["best"]] if found.get("best") else [])
    rows = [
        (
            str(trial["trial"]),
            ", ".join(f"{key} {value:.4g}" for key, value in trial["metrics"].items()),
            str(trial["cell"]),
        )
        for trial in trials
    ]
    return table(("TRIAL", "REACHED", "DIFFERS"), rows).split("\n")[1:]
