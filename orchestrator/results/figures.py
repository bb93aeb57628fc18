"""The figures of a study's report. Each takes numbers that are there; none computes a result."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.results.cells import shortened
from orchestrator.results.comparison import Cell, Column, Comparison, Verdict
from orchestrator.results.drawing import (
    BASE,
    COLOURS,
    INK,
    MARKERS,
    PAPER,
    RULE,
    SOFT,
    draw,
)
from orchestrator.results.labels import place_labels
from orchestrator.results.numbers import delta_text, interval_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_VERDICT_COLOURS: Mapping[Verdict, str] = {"better": COLOURS[0], "worse": COLOURS[1]}
_LONGEST, _BRIEF = 32, 22
"""Characters of a cell's name beside its row, and where there is less room."""
_MOST_NAMED = 14
_COST_LABELS = {
    "model/macs": "multiply-adds of one image",
    "model/parameters": "parameters",
}


def short_names(cells: Sequence[str]) -> dict[str, str]:
    """Return names to show: the level alone where all cells are levels of one factor."""
    parts = [name.split("=", 1) for name in cells]
    single = all(len(p) == 2 and "," not in p[1] and p[0] == parts[0][0] for p in parts)
    return {name: part[1] if single else name for name, part in zip(cells, parts, strict=True)}


def unit_of_difference(metric: Column) -> str:
    """Return the unit of a difference of two values: points where they are percent."""
    return "percentage points" if metric.unit == "%" else metric.unit


def axis_text(column: Column) -> str:
    """Return a column's title with its unit."""
    return f"{column.title} ({column.unit})" if column.unit else column.title


class Look:
    """Colour, marker and short name of each cell, the same in all figures."""

    def __init__(self, comparison: Comparison) -> None:
        full = short_names([cell.name for cell in comparison.cells])
        self._names = dict(zip(full, shortened(list(full.values()), _LONGEST), strict=True))
        self._brief = dict(zip(full, shortened(list(full.values()), _BRIEF), strict=True))
        others = [cell.name for cell in comparison.cells if not cell.is_baseline]
        self._places = {name: index for index, name in enumerate(others)}

    def colour(self, cell: str) -> str:
        """Return a cell's colour; the baseline's is grey."""
        return COLOURS[self._places[cell] % len(COLOURS)] if cell in self._places else BASE

    def marker(self, cell: str) -> str:
        """Return a cell's marker, so that colour is not all that tells it apart."""
        if cell not in self._places:
            return "X"
        return MARKERS[(self._places[cell] // len(COLOURS) + self._places[cell]) % len(MARKERS)]

    def name(self, cell: str) -> str:
        """Return what a cell is called where its factor goes without saying."""
        return self._names.get(cell, cell)

    def brief(self, cell: str) -> str:
        """Return the same in few characters, for places between points."""
        return self._brief.get(cell, cell)


# --- paired differences --------------------------------------------------------------------------


def deltas(comparison: Comparison) -> dict[str, bytes] | None:
    """Draw the mean difference of each cell to the baseline, its interval, and every seed."""
    cells = [c for c in comparison.cells if c.delta is not None and not c.is_baseline]
    if not cells:
        return None
    return draw(0.85 + 0.27 * len(cells), lambda figure: _paint_deltas(figure, comparison, cells))


def _paint_deltas(figure: "Figure", comparison: Comparison, cells: Sequence[Cell]) -> None:
    axes, look, metric = figure.subplots(), Look(comparison), comparison.metric
    shown = [(cell, cell.delta) for cell in cells if cell.delta is not None]
    reach = 3.0 * max(max(map(abs, (*d.values, d.mean))) for _, d in shown) or 1.0
    limit = min(reach, 1.08 * max(_farthest(cell) for cell in cells) or 1.0)
    for row, (cell, delta) in enumerate(shown):
        colour = _VERDICT_COLOURS.get(delta.verdict, SOFT)
        below = [row + 0.3] * len(delta.values)
        axes.plot(delta.values, below, "o", color=colour, markersize=2.6, alpha=0.7, clip_on=False)
        if delta.low is not None and delta.high is not None:
            _interval(axes, row, delta.low, delta.high, limit, colour)
        filled = delta.verdict in _VERDICT_COLOURS
        axes.plot(
            delta.mean, row, "D", color=colour, markersize=5.5,
            markerfacecolor=colour if filled else PAPER, zorder=3,
        )  # fmt: skip
        axes.text(1.02, row, _delta_text(cell, metric), transform=axes.get_yaxis_transform(),
                  va="center", fontsize=7.5)  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xlim(-limit, limit)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_yticks(range(len(shown)), [look.name(cell.name) for cell, _ in shown])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    unit = unit_of_difference(metric)
    better = {"higher": ", right is better", "lower": ", left is better", "": ""}[metric.better]
    axes.set_xlabel(
        f"{metric.title} minus that of {look.name(comparison.baseline)}"
        + (f" ({unit}{better})" if unit else better)
    )


def _farthest(cell: Cell) -> float:
    delta = cell.delta
    assert delta is not None
    ends = (*delta.values, delta.mean, delta.low or 0.0, delta.high or 0.0)
    return max(map(abs, ends))


def _interval(axes: "Axes", row: int, low: float, high: float, limit: float, colour: str) -> None:
    """Draw a confidence interval; an arrow says that it goes on beyond the picture."""
    axes.hlines(row, max(low, -limit), min(high, limit), color=colour, linewidth=1.6)
    for end, sign, arrow in ((low, -1, "<"), (high, 1, ">")):
        beyond = sign * end > limit
        axes.plot(
            sign * limit if beyond else end, row, arrow if beyond else "|",
            color=colour, markersize=6, clip_on=False,
        )  # fmt: skip


def _delta_text(cell: Cell, metric: Column) -> str:
    delta = cell.delta
    assert delta is not None
    interval = f"  {interval_text(delta, metric)}" if delta.low is not None else ""
    text = f"{delta_text(delta, metric)}{interval}  n={delta.n}"
    return re.sub(r"(?<!e)-", "\N{MINUS SIGN}", text)


# --- accuracy against cost -----------------------------------------------------------------------


def cost_columns(comparison: Comparison) -> list[Column]:
    """Return the costs that not all cells share, of those that a figure shows."""
    found = []
    for column in comparison.columns:
        values = {_shown(cell, column.key) for cell in comparison.cells} - {None}
        if column.key in ("model/macs", "model/parameters") and len(values) > 1:
            found.append(column)
    return found


def accuracy_against_cost(comparison: Comparison) -> dict[str, bytes] | None:
    """Draw each cell's mean over its cost, with the best of each cost joined by a line."""
    columns = cost_columns(comparison)
    if not columns:
        return None

    def paint(figure: "Figure") -> None:
        panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        panels[0].set_ylabel(axis_text(comparison.metric))
        for axes, column in zip(panels, columns, strict=True):
            _paint_cost(axes, comparison, column)

    return draw(3.3 if len(columns) > 1 else 3.9, paint)


def _paint_cost(axes: "Axes", comparison: Comparison, column: Column) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

    look, key = Look(comparison), comparison.metric.key
    points, bars, best = [], [], front(comparison, column)
    for cell in comparison.cells:
        cost, estimate = _shown(cell, column.key), cell.values.get(key)
        if cost is None or estimate is None:
            continue
        colour = look.colour(cell.name)
        axes.errorbar(
            cost, estimate.mean, yerr=estimate.deviation, color=colour, capsize=2,
            elinewidth=0.9, fmt=look.marker(cell.name), markersize=5.5, zorder=3,
        )  # fmt: skip
        named = not names_only_best(comparison) or cell.is_baseline or cell in best
        points.append((cost, estimate.mean, look.brief(cell.name) if named else "", colour))
        half = estimate.deviation or 0.0
        bars.append((cost, estimate.mean - half, estimate.mean + half))
    costs = [point[0] for point in points]
    if min(costs) > 0 and max(costs) > 4 * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.margins(x=0.18, y=0.14)
    axes.plot(
        [cell.values[column.key].mean for cell in best],
        [cell.values[key].mean for cell in best],
        color=RULE, linewidth=2.5, zorder=1,
    )  # fmt: skip
    axes.set_xlabel(_COST_LABELS[column.key])
    place_labels(axes, points, bars)


def front(comparison: Comparison, column: Column) -> list[Cell]:
    """Return the cells that no other one beats at the same or a lower cost, cheapest first."""
    metric = comparison.metric
    if not metric.better:
        return []
    sign = -1.0 if metric.better == "lower" else 1.0
    known = [
        (cost, sign * value, cell)
        for cell in comparison.cells
        if (cost := _shown(cell, column.key)) is not None
        and (value := _shown(cell, metric.key)) is not None
    ]
    found: list[tuple[float, Cell]] = []
    for _, value, cell in sorted(known, key=lambda item: (item[0], -item[1])):
        if not found or value > found[-1][0]:
            found.append((value, cell))
    return [cell for _, cell in found]


def names_only_best(comparison: Comparison) -> bool:
    """Whether a figure of costs has too many points to name them all."""
    return len(comparison.cells) > _MOST_NAMED


def _shown(cell: Cell, key: str) -> float | None:
    estimate = cell.values.get(key)
    return None if estimate is None else estimate.mean
