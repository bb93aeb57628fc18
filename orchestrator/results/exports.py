"""A comparison for other programs: JSON, and CSV by training or by cell. Nothing is rounded."""

import csv
import io
import math
from typing import Any

from orchestrator.results.columns import value_of
from orchestrator.results.comparison import Cell, Column, Comparison, Delta, Estimate, Training

VERSION = 1
"""Of the JSON; keys may be added within a version, and none changes its meaning."""


def metric_name(column: Column) -> str:
    """Return what MLflow calls a column."""
    return column.key if "/" in column.key else f"eval/{column.key}"


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison with the keys that scripts may rely on (docs/comparison.md)."""
    return {
        "version": VERSION,
        "title": comparison.title,
        "metric": metric_name(comparison.metric),
        "baseline": comparison.baseline or None,
        "columns": [
            {
                "name": metric_name(column),
                "title": column.title,
                "unit": column.unit or None,
                "better": column.better or None,
            }
            for column in comparison.columns
        ],
        "differing_keys": list(comparison.differing_keys),
        "warnings": list(comparison.warnings),
        "cells": [_cell(cell, comparison) for cell in comparison.cells],
    }


def to_csv(comparison: Comparison) -> str:
    """Return a row for each training, those that do not count included."""
    columns = comparison.columns
    header = ["cell", "is_baseline", "job_id", "run_id", "kind", "state", "counted", "seed"]
    header += ["recipe", "reused", "commit", "evaluation_job", "why_not_counted"]
    header += [*comparison.differing_keys, *(metric_name(column) for column in columns)]
    rows: list[list[Any]] = []
    for cell in comparison.cells:
        for t in cell.trainings:
            counted = t.job_id not in cell.missing
            row: list[Any] = [cell.name, cell.is_baseline, t.job_id, t.run_id, t.kind, t.state]
            row += [counted, t.seed, t.recipe, t.reused, t.commit, t.evaluation_job]
            row.append(cell.missing.get(t.job_id, ""))
            row += [t.config.get(key) for key in comparison.differing_keys]
            rows.append(row + [value_of(t, column) for column in columns])
    return _csv(header, rows)


def to_csv_of_cells(comparison: Comparison) -> str:
    """Return a row for each cell: means, deviations, and the difference to the baseline."""
    names = [metric_name(column) for column in comparison.columns]
    header = ["cell", "is_baseline", *comparison.differing_keys]
    header += [f"{name} {part}" for name in names for part in ("mean", "deviation", "n")]
    header += [f"delta {part}" for part in ("mean", "low", "high", "n", "p", "verdict")]
    header += ["published", "not_counted"]
    rows: list[list[Any]] = []
    for cell in comparison.cells:
        row: list[Any] = [cell.name, cell.is_baseline]
        row += [cell.differs.get(key) for key in comparison.differing_keys]
        for column in comparison.columns:
            found = cell.values.get(column.key)
            row += [found.mean, found.deviation, found.n] if found else [None, None, 0]
        delta = cell.delta
        row += (
            [delta.mean, delta.low, delta.high, delta.n, delta.p, delta.verdict]
            if delta is not None
            else [None] * 6
        )
        rows.append([*row, cell.published, len(cell.missing)])
    return _csv(header, rows)


def _cell(cell: Cell, comparison: Comparison) -> dict[str, Any]:
    values = {
        metric_name(column): _estimate(cell.values[column.key])
        for column in comparison.columns
        if column.key in cell.values
    }
    return {
        "name": cell.name,
        "is_baseline": cell.is_baseline,
        "differs": dict(cell.differs),
        "values": values,
        "delta": None if cell.delta is None else _delta(cell.delta),
        "published": cell.published,
        "not_counted": [{"job_id": job, "why": why} for job, why in cell.missing.items()],
        "trainings": [_training(t, cell, comparison) for t in cell.trainings],
    }


def _estimate(found: Estimate) -> dict[str, Any]:
    return {
        "mean": found.mean,
        "deviation": found.deviation,
        "n": found.n,
        "values": list(found.values),
    }


def _delta(delta: Delta) -> dict[str, Any]:
    return {
        "mean": delta.mean,
        "low": delta.low,
        "high": delta.high,
        "n": delta.n,
        "p": delta.p,
        "verdict": delta.verdict or None,
        "values": list(delta.values),
    }


def _training(training: Training, cell: Cell, comparison: Comparison) -> dict[str, Any]:
    values = {metric_name(c): _finite(value_of(training, c)) for c in comparison.columns}
    return {
        "job_id": training.job_id,
        "run_id": training.run_id,
        "experiment_id": training.experiment_id,
        "kind": training.kind,
        "state": training.state,
        "counted": training.job_id not in cell.missing,
        "seed": training.seed,
        "recipe": training.recipe,
        "reused": training.reused,
        "commit": training.commit or None,
        "evaluation_job": training.evaluation_job or None,
        "facts": dict(training.facts),
        "values": values,
    }


def _finite(value: float | None) -> float | None:
    """Return a number as JSON has it, which knows no NaN."""
    return value if value is not None and math.isfinite(value) else None


def _csv(header: list[str], rows: list[list[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([[_field(value) for value in row] for row in rows])
    return stream.getvalue()


def _field(value: Any) -> Any:
    if isinstance(value, str):
        return as_text(value)
    return str(value).lower() if isinstance(value, bool) else value


def as_text(value: str) -> str:
    """Return a text that no program for tables takes for a formula, but for one that is a number.

    An apostrophe in front says so to all of them.
    """
    try:
        float(value)
    except ValueError:
        return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
    return value
