"""In which order cells are shown."""

from collections.abc import Callable

from orchestrator.jobs.errors import NotFoundError
from orchestrator.results.columns import column_of
from orchestrator.results.comparison import Cell, Column, Comparison
from workloads.config.errors import did_you_mean

_OTHERS = ("cell", "delta", "p")


def in_order(comparison: Comparison, by: str) -> tuple[Cell, ...]:
    """Return the cells of a comparison ordered, the best first; those without the number last.

    Args:
        by: A column by its name or title (`top1`, `eval/top1`, `MACs`), `delta`, `p` or `cell`.
            Where no direction is better, the smallest comes first.

    Raises:
        NotFoundError: The comparison has no such column.
    """
    if by == "cell":
        return tuple(sorted(comparison.cells, key=lambda cell: cell.name))
    if by == "p":
        return _sorted(comparison, lambda cell: cell.delta.p if cell.delta else None, "lower")
    if by == "delta":
        better = comparison.metric.better
        return _sorted(comparison, lambda cell: cell.delta.mean if cell.delta else None, better)
    column = _column(comparison, by)
    return _sorted(comparison, lambda cell: _mean(cell, column), column.better)


def _column(comparison: Comparison, by: str) -> Column:
    wanted = {column_of(by).key, f"val/{by}"}
    for column in comparison.columns:
        if column.key in wanted or column.title.lower() == by.lower():
            return column
    known = [*(column.key for column in comparison.columns), *_OTHERS]
    hint = did_you_mean(by, known) or f"one of {', '.join(known)}"
    raise NotFoundError(f"--sort: there is no column {by!r}", hint)


def _mean(cell: Cell, column: Column) -> float | None:
    found = cell.values.get(column.key)
    return found.mean if found is not None else None


def _sorted(
    comparison: Comparison, number: Callable[[Cell], float | None], better: str
) -> tuple[Cell, ...]:
    sign = -1.0 if better == "higher" else 1.0

    def place(cell: Cell) -> tuple[bool, float]:
        value = number(cell)
        return value is None, sign * value if value is not None else 0.0

    return tuple(sorted(comparison.cells, key=place))
