"""Figures of how fast the cells of a study learn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.results.comparison import Comparison
from orchestrator.results.convergence import Convergence, Match
from orchestrator.results.drawing import RULE, draw, label_ends
from orchestrator.results.figures import Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_OVERLAID = 6
"""Curves beside the baseline's that one panel holds; more get panels of their own."""


def convergence_bands(
    comparison: Comparison, curves: Sequence[Convergence]
) -> dict[str, bytes] | None:
    """Draw validation top-1 by epoch: the mean over seeds and a band of one deviation."""
    if not any(len(curve.epochs) > 1 for curve in curves):
        return None
    base = next((curve for curve in curves if curve.is_baseline), None)
    others = [curve for curve in curves if not curve.is_baseline]
    look, limits = Look(comparison), _top_of(curves)
    if len(others) <= _MOST_OVERLAID:
        return draw(3.4, lambda figure: _overlay(figure, base, others, look, limits))
    columns = 4
    rows = -(-len(others) // columns)
    return draw(
        0.5 + 1.45 * rows, lambda figure: _panels(figure, base, others, look, limits, columns)
    )


def _overlay(
    figure: "Figure",
    base: Convergence | None,
    others: Sequence[Convergence],
    look: Look,
    limits: tuple[float, float],
) -> None:
    axes = figure.subplots()
    curves = [*([base] if base else []), *others]
    for curve in curves:
        _band(axes, curve, look)
    _epoch_axis(axes, curves)
    axes.set_ylim(*limits)
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation top-1 (%)")
    ends = [
        (curve.mean[-1], f"{look.brief(curve.cell)}  {curve.mean[-1]:.2f}", look.colour(curve.cell))
        for curve in curves
        if curve.epochs
    ]
    label_ends(axes, ends, gap_points=9.5)


def _panels(
    figure: "Figure",
    base: Convergence | None,
    others: Sequence[Convergence],
    look: Look,
    limits: tuple[float, float],
    columns: int,
) -> None:
    rows = -(-len(others) // columns)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    flat = [axes for row in grid for axes in row]
    for axes, curve in zip(flat, others, strict=False):
        if base:
            _band(axes, base, look)
        _band(axes, curve, look)
        axes.set_title(look.brief(curve.cell), color=look.colour(curve.cell))
        axes.set_ylim(*limits)
    _epoch_axis(flat[0], [*([base] if base else []), *others], ticks=4)
    for axes in flat[len(others) :]:
        axes.set_axis_off()
    figure.supxlabel("epoch", fontsize=8)
    figure.supylabel("validation top-1 (%)", fontsize=8)


def _band(axes: "Axes", curve: Convergence, look: Look) -> None:
    colour = look.colour(curve.cell)
    if curve.deviation:
        pairs = list(zip(curve.mean, curve.deviation, strict=True))
        low, high = [m - d for m, d in pairs], [m + d for m, d in pairs]
        axes.fill_between(curve.epochs, low, high, color=colour, alpha=0.16, linewidth=0)
    style = (0, (4, 2)) if curve.is_baseline else "-"
    alone = "o" if len(curve.epochs) == 1 else None
    axes.plot(curve.epochs, curve.mean, color=colour, linestyle=style, marker=alone)


def _epoch_axis(axes: "Axes", curves: Sequence[Convergence], *, ticks: int = 10) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(min(c.epochs[0] for c in curves if c.epochs), max(c.last_epoch for c in curves))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=ticks, integer=True))


def _top_of(curves: Sequence[Convergence]) -> tuple[float, float]:
    """Return limits that show how the ends differ; the first epochs may begin below."""
    drawn = [curve for curve in curves if curve.epochs]
    ends = [value for c in drawn for value in c.mean[len(c.mean) // 2 :]]
    high, end = max(v for c in drawn for v in c.mean), min(ends)
    lowest = min(value for curve in drawn for value in curve.mean)
    low = max(lowest, end - 1.5 * max(high - end, 1.0))
    room = 0.06 * (high - low) or 0.5
    return low - room, min(high + 2 * room, 100.0 + room)


# --- matching epoch ------------------------------------------------------------------------------


def matching(comparison: Comparison, matches: Sequence[Match]) -> dict[str, bytes] | None:
    """Draw when each cell first reached the final top-1 of the baseline."""
    if len(matches) < 2:
        return None
    return draw(
        0.75 + 0.27 * len(matches), lambda figure: _paint_matches(figure, comparison, matches)
    )


def _paint_matches(figure: "Figure", comparison: Comparison, matches: Sequence[Match]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes, look = figure.subplots(), Look(comparison)
    for row, match in enumerate(matches):
        colour = look.colour(match.cell)
        axes.hlines(row, 0, match.of_epochs, color=RULE, linewidth=3)
        if match.epoch is not None:
            axes.hlines(row, 0, match.epoch, color=colour, linewidth=3)
            axes.plot(match.epoch, row, look.marker(match.cell), color=colour, markersize=6.5)
        seeds = [epoch for epoch in match.by_seed if epoch is not None]
        axes.plot(seeds, [row + 0.27] * len(seeds), "|", color=colour, markersize=5)
        axes.text(1.02, row, match_text(match), transform=axes.get_yaxis_transform(),
                  va="center", fontsize=7.5)  # fmt: skip
    axes.set_xlim(0, max(match.of_epochs for match in matches) * 1.01)
    axes.set_ylim(len(matches) - 0.4, -0.6)
    axes.set_yticks(range(len(matches)), [look.name(match.cell) for match in matches])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"epoch at which {matches[0].target:.2f} % validation top-1 is first reached")


def match_text(match: Match) -> str:
    """Return `12 of 20, 2 of 3 seeds`."""
    reached = sum(epoch is not None for epoch in match.by_seed)
    first = f"{match.epoch} of {match.of_epochs}" if match.epoch is not None else "not reached"
    return f"{first}; {reached} of {len(match.by_seed)} seeds"
