"""A comparison as rows: for the terminal, and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.results.cells import short_names, shortened, value_text
from orchestrator.results.columns import TOP1
from orchestrator.results.comparison import Cell, Column, Comparison, Estimate
from orchestrator.results.document import plain
from orchestrator.results.numbers import (
    NOTHING,
    delta_text,
    estimate_text,
    heading,
    interval_text,
    p_text,
    signed,
)

BASELINE_MARK = "*"
_LONGEST_NAME = 44
_SHORTEST_NAME = 24
_FEW_CELLS = 4
_GAP = 2
_WORDS = ("cell", "key", "verdict")


@dataclass(frozen=True)
class Block:
    """A table that fits a width; its first column says which row is which."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def for_terminal(
    comparison: Comparison, *, width: int = 100, all_keys: bool = False
) -> list[Block]:
    """Return tables, one under the other, each no wider than `width` characters.

    The first has the metric and the differences, the next ones the other columns, the last what
    differs where the names of the cells do not say it.

    Args:
        all_keys: Show what differs in any case.
    """
    all_names = [cell.name for cell in comparison.cells]
    names = shortened(all_names, _room_for_names(comparison, width))
    # A verdict without its n would be half the truth, so n goes with each part.
    blocks = _fitted(*_metric_table(comparison, names), width=width, with_n=True)
    blocks += _fitted(*_other_columns(comparison, names), width=width)
    if comparison.differing_keys and (all_keys or not names_say_all(comparison)):
        blocks += _fitted(*_keys_table(comparison, names), width=width)
    return blocks


def names_say_all(comparison: Comparison) -> bool:
    """Whether the names of the cells tell what differs; what is as in the baseline goes unsaid."""
    short = short_names(comparison.differing_keys)
    base = next((cell.differs for cell in comparison.cells if cell.is_baseline), {})
    return all(
        short[key] in (change.partition("=")[0] for change in cell.name.split(","))
        for cell in comparison.cells
        for key, value in cell.differs.items()
        if cell.is_baseline or base.get(key) != value
    )


def one_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return everything but what differs as one table, however wide."""
    names = [cell.name for cell in comparison.cells]
    header, rows = _metric_table(comparison, names)
    more_header, more_rows = _other_columns(comparison, names)
    joined = [[*row, *more[1:]] for row, more in zip(rows, more_rows, strict=True)]
    return [*header, *more_header[1:]], joined


def notes(comparison: Comparison) -> list[str]:
    """Return what stands under a table: what its signs mean, and who is missing."""
    has_deltas = any(cell.delta is not None for cell in comparison.cells)
    found = [f"n trainings, mean ± standard deviation of one; {_source(comparison.metric)}"]
    if has_deltas:
        found.append(
            f"Δ: mean difference to {comparison.baseline} ({BASELINE_MARK}) by seed, with its 95 % "
            f"interval (paired t, not corrected for the number of cells){about_p(comparison)}"
        )
    return found


def about_p(comparison: Comparison) -> str:
    """Return what the p values are, and over how many cells corrected; empty without any."""
    count = sum(cell.delta is not None and cell.delta.p is not None for cell in comparison.cells)
    if not count:
        return ""
    return f"; p of the paired t test, after Holm for {count} cell{'s'[: count != 1]} tested"


def missing(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Return the trainings that do not count: cell, job, state and reason."""
    return [(cell.name, job, why) for cell in comparison.cells for job, why in cell.missing.items()]


def to_markdown(comparison: Comparison) -> str:
    """Return the comparison as a Markdown table with its notes."""
    header, rows = one_table(comparison)
    lines = [f"**{plain(comparison.title)}**", "", _bars(header)]
    lines.append("|---|" + "---:|" * (len(header) - 1))
    lines += [_bars(row) for row in rows]
    keys = comparison.differing_keys
    if keys and not names_say_all(comparison):
        key_header, key_rows = _keys_table(comparison, [cell.name for cell in comparison.cells])
        lines += ["", _bars(key_header), "|---|" + "---|" * (len(key_header) - 1)]
        lines += [_bars(row) for row in key_rows]
    lines += ["", *(f"{plain(note)}.  " for note in notes(comparison))]
    lines += ["", *(f"- **Note:** {plain(text)}" for text in comparison.warnings)]
    lines += [
        f"- **Not counted:** {plain(f'{job} of {name}, {why}')}"
        for name, job, why in missing(comparison)
    ]
    return "\n".join(lines).rstrip() + "\n"


# --- the parts -----------------------------------------------------------------------------------


def _metric_table(
    comparison: Comparison, names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return what is compared: the number, n, and the difference to the baseline."""
    column = comparison.metric
    has_deltas = any(cell.delta is not None for cell in comparison.cells)
    header = ["cell", heading(column), "n"]
    if has_deltas:
        header += ["Δ", "95 % interval", "p", "verdict"]
    rows = []
    for name, cell in zip(names, comparison.cells, strict=True):
        mark = f" {BASELINE_MARK}" if cell.is_baseline and has_deltas else ""
        found = cell.values.get(column.key)
        row = [name + mark, estimate_text(found, column), n_text(cell, found)]
        if has_deltas:
            row += ["", "", "", ""] if cell.is_baseline else delta_texts(cell, column)
        rows.append(tuple(row))
    return tuple(header), tuple(rows)


def delta_texts(cell: Cell, column: Column) -> list[str]:
    """Return the difference of a cell to the baseline, its interval, its p and the verdict."""
    delta = cell.delta
    if delta is None:
        return [NOTHING, NOTHING, NOTHING, "no shared seed" if cell.values else ""]
    found = cell.values.get(column.key)
    of = f" (n {delta.n})" if found is not None and delta.n != found.n else ""
    return [
        delta_text(delta, column) + of,
        interval_text(delta, column),
        p_text(delta.p),
        delta.verdict or NOTHING,
    ]


def n_text(cell: Cell, found: Estimate | None) -> str:
    """Return how many trainings the mean is of: `3`, or `2 of 3` where a seed is missing."""
    count = found.n if found is not None else 0
    asked = len({t.seed if t.seed is not None else t.run_id for t in cell.trainings})
    return str(count) if count == asked else f"{count} of {asked}"


def _other_columns(
    comparison: Comparison, names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    columns = comparison.columns[1:]
    has_published = any(cell.published is not None for cell in comparison.cells)
    header = ["cell", *map(heading, columns), *(["published %"] if has_published else [])]
    rows = []
    for name, cell in zip(names, comparison.cells, strict=True):
        row = [name, *(estimate_text(cell.values.get(c.key), c) for c in columns)]
        if has_published:
            row.append(_published_text(cell, comparison))
        rows.append(tuple(row))
    return tuple(header), tuple(rows)


def _published_text(cell: Cell, comparison: Comparison) -> str:
    """Return the published top-1, and by how much ours is above or below it."""
    if cell.published is None:
        return NOTHING
    for column in (comparison.metric, *comparison.columns):
        if column.key in TOP1 and column.key in cell.values:
            difference = cell.values[column.key].mean - cell.published
            return f"{cell.published:.2f} (ours {signed(difference, column)})"
    return f"{cell.published:.2f}"


def _keys_table(
    comparison: Comparison, names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return what differs: a row for each key, or for each cell where there are many."""
    keys = comparison.differing_keys
    texts = [
        [value_text(cell.differs[k]) if k in cell.differs else NOTHING for k in keys]
        for cell in comparison.cells
    ]
    if len(comparison.cells) <= _FEW_CELLS:
        rows = zip(keys, *texts, strict=True)
        return ("key", *names), tuple(rows)
    short = short_names(keys)
    cells = zip(names, texts, strict=True)
    return ("cell", *(short[k] for k in keys)), tuple((name, *row) for name, row in cells)


def _fitted(
    header: tuple[str, ...], rows: tuple[tuple[str, ...], ...], *, width: int, with_n: bool = False
) -> list[Block]:
    """Return a table in parts that fit a width; each part begins with the first column.

    Args:
        with_n: Parts after the first also repeat the column `n`.
    """
    if len(header) < 2:
        return []
    widths = _widths(header, rows)
    again = [0, *([header.index("n")] if with_n else [])]
    parts: list[list[int]] = [[0]]
    for index in range(1, len(header)):
        part = parts[-1]
        fits = sum(widths[i] + _GAP for i in part) + widths[index] <= width
        if not fits and part not in ([0], again):
            parts.append([i for i in again if i < index])
        parts[-1].append(index)
    return [
        Block(
            tuple(_aligned(header[i], header[i], widths[i]) for i in part),
            tuple(tuple(_aligned(row[i], header[i], widths[i]) for i in part) for row in rows),
        )
        for part in parts
    ]


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]


def _aligned(text: str, title: str, width: int) -> str:
    """Return numbers at the right of their column, words at its left."""
    return text if title in _WORDS else text.rjust(width)


def _room_for_names(comparison: Comparison, width: int) -> int:
    """Return how long names may be for the first table to stay in one part, within reason."""
    header, rows = _metric_table(comparison, [""] * len(comparison.cells))
    others = sum(_GAP + number for number in _widths(header, rows)[1:])
    mark = len(BASELINE_MARK) + 1
    return min(max(width - others - mark, _SHORTEST_NAME), _LONGEST_NAME)


def _source(column: Column) -> str:
    if "/" not in column.key:
        return f"{column.title} is of the evaluation"
    if column.key.startswith("val/"):
        return f"{column.title} is of the last validation in training"
    return f"{column.key} as recorded in training"


def _bars(cells: Sequence[str]) -> str:
    return f"| {' | '.join(plain(cell) for cell in cells)} |"
