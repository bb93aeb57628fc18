"""What a reader of a comparison must know before believing it."""

from collections.abc import Mapping, Sequence

from orchestrator.results.cells import value_text
from orchestrator.results.comparison import Cell, Column, Training
from orchestrator.results.estimates import LEAST_SEEDS

_SOME = 3
_MANY_RUNS = 8
CountedIn = Mapping[str, Sequence[Training]]
"""Name of a cell -> the trainings that its means are made of."""


def listed(names: Sequence[str]) -> str:
    """Return `a is`, `a and b are` or `a, b, c and 4 more are`."""
    if len(names) == 1:
        return f"{names[0]} is"
    if len(names) > _SOME:
        return f"{', '.join(names[:_SOME])} and {len(names) - _SOME} more are"
    return f"{', '.join(names[:-1])} and {names[-1]} are"


def about_seeds(cells: Sequence[Cell], counted_in: CountedIn) -> list[str]:
    """Say which cells are means over other seeds than the others."""
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for cell in cells:
        seeds = tuple(sorted(t.seed for t in counted_in[cell.name] if t.seed is not None))
        by_seeds.setdefault(seeds, []).append(cell.name)
    by_seeds.pop((), None)
    if len(by_seeds) < 2:
        return []
    usual = max(by_seeds, key=lambda seeds: (len(by_seeds[seeds]), len(seeds)))
    parts = [_seeds_of(names, seeds) for seeds, names in by_seeds.items() if seeds != usual]
    others = f"the others {_text(usual)}" if len(by_seeds[usual]) > 1 else (
        f"{by_seeds[usual][0]} {_text(usual)}"
    )  # fmt: skip
    has_deltas = any(cell.delta is not None for cell in cells)
    pairs = "; differences are taken over the seeds that both have" if has_deltas else ""
    return [f"means are over different seeds: {'; '.join(parts)}; {others}{pairs}"]


def _seeds_of(names: Sequence[str], seeds: Sequence[int]) -> str:
    more = f" and {len(names) - _SOME} more" if len(names) > _SOME else ""
    return f"{', '.join(names[:_SOME])}{more} {_text(seeds)}"


def _text(seeds: Sequence[int]) -> str:
    """Return `seeds 0-4, 7`."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    parts = [f"{r[0]}-{r[-1]}" if len(r) > 2 else ", ".join(map(str, r)) for r in runs]
    shown = ", ".join(parts[:_MANY_RUNS]) + (" ..." if parts[_MANY_RUNS:] else "")
    return f"seed{'s'[: len(seeds) != 1]} {shown}"


def about_deltas(cells: Sequence[Cell]) -> list[str]:
    """Say where differences cannot be judged."""
    base = next((cell for cell in cells if cell.is_baseline), None)
    if base is None or len(cells) < 2 or not any(cell.values for cell in cells):
        return []
    found = []
    if not base.values or base.delta is None:
        found.append(f"the baseline {base.name} has no finished training: there is no difference")
    others = [cell for cell in cells if not cell.is_baseline]
    apart = [c.name for c in others if c.delta is None and c.values and base.values]
    if apart:
        found.append(f"{listed(apart)} without a seed that the baseline {base.name} has too")
    few = [c.name for c in others if c.delta is not None and c.delta.n < LEAST_SEEDS]
    if few:
        some = ", ".join(few[:_SOME]) + (f" and {len(few) - _SOME} more" if few[_SOME:] else "")
        found.append(f"no verdict below {LEAST_SEEDS} shared seeds: {some}")
    equal = [
        c.name
        for c in others
        if c.delta is not None and c.delta.n >= LEAST_SEEDS and c.delta.p is None
    ]
    if equal:
        found.append(
            f"{listed(equal)} apart from the baseline by the same in every seed: there is no "
            "scatter to judge it by"
        )
    return found


def about_numbers(cells: Sequence[Cell], columns: Sequence[Column]) -> list[str]:
    """Say where a mean is over fewer trainings than the one that is compared."""
    found = []
    for column in columns[1:]:
        for cell in cells:
            there, all_of = cell.values.get(column.key), cell.values.get(columns[0].key)
            if there is not None and all_of is not None and there.n < all_of.n:
                found.append(
                    f"{cell.name}: {column.title} is of {there.n} of {all_of.n} trainings; "
                    "the others recorded none that is finite"
                )
    return found


def about_facts(counted_in: CountedIn, keys: Sequence[str]) -> list[str]:
    """Say what else differs between trainings that are compared, besides the config."""
    everybody = [(cell, t) for cell, trainings in counted_in.items() for t in trainings]
    facts = dict.fromkeys(fact for _, t in everybody for fact in t.facts)
    return [
        text
        for fact in facts
        if not _is_asked_for(fact, keys) and (text := _about_fact(fact, everybody))
    ]


def _is_asked_for(fact: str, keys: Sequence[str]) -> bool:
    """Whether the cells differ in it on purpose."""
    about_data = fact in ("data digest", "evaluation data")
    return about_data and any(key.startswith("data.") for key in keys)


def _about_fact(fact: str, everybody: Sequence[tuple[str, Training]]) -> str:
    by_value: dict[str, list[str]] = {}
    for cell, training in everybody:
        if fact in training.facts:
            text = value_text(training.facts[fact]) or "none"
            by_value.setdefault(text, []).append(cell)
    if len(by_value) < 2:
        return ""
    parts = []
    for value, cells in by_value.items():
        names = list(dict.fromkeys(cells))
        more = f" and {len(names) - _SOME} more" if len(names) > _SOME else ""
        parts.append(f"{value} ({', '.join(names[:_SOME])}{more})")
    return f"not all have the same {fact}: {'; '.join(parts[:4])}{' ...' if parts[4:] else ''}"
