"""The tables of a study's report."""

from collections.abc import Sequence

from orchestrator.results.columns import TOP1, value_of
from orchestrator.results.comparison import Cell, Column, Comparison
from orchestrator.results.convergence import Match
from orchestrator.results.document import Table, code
from orchestrator.results.estimates import is_number
from orchestrator.results.figures import unit_of_difference
from orchestrator.results.numbers import (
    NOTHING,
    estimate_text,
    heading,
    number_text,
    signed,
)
from orchestrator.results.tables import about_p, delta_texts, n_text

_COSTS = ("model/", "perf/", "time/")


def main_table(comparison: Comparison) -> Table:
    """Return what is compared: means, differences to the baseline, and how sure they are."""
    metric = comparison.metric
    says_unit = heading(metric) == metric.title  # a time says its unit in each row
    unit = "" if says_unit else unit_of_difference(metric)
    has_published = any(cell.published is not None for cell in comparison.cells)
    header = [
        "cell",
        heading(metric),
        "n",
        "difference",
        "95 % interval",
        "p",
        "verdict",
        *["published %"] * has_published,
    ]
    rows = [_main_row(cell, comparison, has_published=has_published) for cell in comparison.cells]
    caption = (
        f"{metric.title[:1].upper()}{metric.title[1:]} of each cell: mean ± standard deviation "
        "over n seeds"
    )
    if comparison.baseline:
        caption += (
            f", and the mean difference to {code(comparison.baseline)} over the seeds that both "
            f"have{f', in {unit}' if unit else ''}, with its 95 % interval (paired t, not "
            f"corrected for the number of cells){about_p(comparison)}"
        )
    return Table(tuple(header), tuple(rows), caption + ".", marked=_baseline_row(comparison))


def _main_row(cell: Cell, comparison: Comparison, *, has_published: bool) -> tuple[str, ...]:
    metric = comparison.metric
    found = cell.values.get(metric.key)
    *numbers, verdict = (
        [NOTHING, NOTHING, NOTHING, "baseline"] if cell.is_baseline else delta_texts(cell, metric)
    )
    row = [
        code(cell.name),
        estimate_text(found, metric),
        n_text(cell, found),
        *numbers,
        f"**{verdict}**" if verdict in ("better", "worse") else verdict,
    ]
    if has_published:
        row.append(NOTHING if cell.published is None else f"{cell.published:.2f}")
    return tuple(row)


def _n(cell: Cell, column: Column) -> str:
    """Return over how many trainings a cell's mean is."""
    return str(cell.values[column.key].n) if column.key in cell.values else "0"


def _baseline_row(comparison: Comparison) -> int | None:
    return next((i for i, cell in enumerate(comparison.cells) if cell.is_baseline), None)


def quality_table(comparison: Comparison) -> Table | None:
    """Return what else tells how good the networks are; None where nothing does."""
    caption = "What else tells how good they are: mean ± standard deviation over the same seeds."
    return _columns_table(comparison, caption, are_costs=False)


def cost_table(comparison: Comparison) -> Table | None:
    """Return what the networks cost; None where that was not recorded."""
    caption = (
        "What they cost: mean ± standard deviation over the same seeds. Multiply-adds (MACs) are "
        "those of one image; images/s, time and memory are of training, on the machine named "
        "under Methods."
    )
    return _columns_table(comparison, caption, are_costs=True)


def _columns_table(comparison: Comparison, caption: str, *, are_costs: bool) -> Table | None:
    others = [column for column in comparison.columns if column.key != comparison.metric.key]
    columns = [column for column in others if column.key.startswith(_COSTS) == are_costs]
    if not columns:
        return None
    rows = tuple(
        (code(cell.name), *(estimate_text(cell.values.get(c.key), c) for c in columns))
        for cell in comparison.cells
    )
    header = ("cell", *map(heading, columns))
    return Table(header, rows, caption, marked=_baseline_row(comparison))


def matching_table(matches: Sequence[Match]) -> Table:
    """Return when each cell matched the baseline."""
    first = matches[0]
    rows = tuple(
        (
            code(m.cell),
            f"{m.epoch}" if m.epoch is not None else NOTHING,
            str(m.of_epochs),
            f"{m.epoch / m.baseline_epochs:.2f}" if m.epoch is not None else NOTHING,
            ", ".join(NOTHING if epoch is None else str(epoch) for epoch in m.by_seed),
        )
        for m in matches
    )
    caption = (
        f"Matching epoch: the first at which validation top-1 reaches {first.target:.2f} %, the "
        "baseline's mean after its last epoch. Of the mean over seeds; as a share of the "
        f"baseline's {first.baseline_epochs} epochs; and of each seed by itself."
    )
    header = ("cell", "matching epoch", "of epochs", "share", "by seed")
    marked = next((i for i, m in enumerate(matches) if m.is_baseline), None)
    return Table(header, rows, caption, marked)


def published_table(comparison: Comparison) -> Table | None:
    """Return published top-1 beside ours; None where no cell has one."""
    cells = [cell for cell in comparison.cells if cell.published is not None]
    top1 = next((c for c in comparison.columns if c.key in TOP1), None)
    if not cells or top1 is None:
        return None
    rows = []
    for cell in cells:
        ours = cell.values.get(top1.key)
        assert cell.published is not None
        rows.append(
            (
                code(cell.name),
                estimate_text(ours, top1),
                _n(cell, top1),
                f"{cell.published:.2f}",
                NOTHING if ours is None else signed(ours.mean - cell.published, top1),
            )
        )
    header = ("cell", heading(top1), "n", "published %", "ours minus published")
    return Table(header, tuple(rows), "Top-1 beside the result that the recipe reproduces.")


def trainings_table(comparison: Comparison) -> Table:
    """Return every training with what it reached."""
    metric = comparison.metric
    rows = []
    for cell in comparison.cells:
        for t in cell.trainings:
            found = value_of(t, metric)
            value = NOTHING if found is None else number_text(found, metric)
            if found is not None and not is_number(found):
                value = "not finite"
            rows.append(
                (
                    code(cell.name),
                    NOTHING if t.seed is None else str(t.seed),
                    code(t.job_id) + (" (reused)" if t.reused else ""),
                    t.state,
                    value,
                )
            )
    header = ("cell", "seed", "job", "state", heading(metric))
    return Table(header, tuple(rows), "Every training of the study.")
