"""From a study to its cells: which levels are put together, and what each is called. Pure."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from workloads.config.ablation import MAX_JOBS, AblationConfig, Factor
from workloads.config.errors import Problem

Levels = tuple[str, ...]
"""One level of each factor, in the order of the factors."""


@dataclass(frozen=True)
class StudyCell:
    """What is trained once with each seed.

    Attributes:
        name: The levels that differ from the baseline, such as `pooling=isqrt,stride=1`; of the
            baseline all of its levels.
        levels: Factor -> level.
        overrides: Keys with dots -> values that its levels set.
        differs: Those of the overrides that the baseline has not, or has otherwise.
    """

    name: str
    levels: Mapping[str, str]
    overrides: Mapping[str, Any]
    differs: Mapping[str, Any]
    is_baseline: bool = False


def count_cells(config: AblationConfig) -> int:
    """Return how many cells a study has, without making them: a grid may have billions."""
    others = [len(factor.levels) - 1 for factor in config.factors.values()]
    match config.mode:
        case "grid":
            return math.prod(number + 1 for number in others)
        case "one-at-a-time":
            return 1 + sum(others)
        case "pairs":
            return 1 + sum(others) + sum(a * b for a, b in combinations(others, 2))
        case "leave-one-out":
            return len(set(_leave_one_out(config.factors)))


def expand(config: AblationConfig) -> tuple[StudyCell, ...]:
    """Return the cells of a study, the baseline first, then in the order of the factors."""
    factors = config.factors
    baseline = _baseline(factors)
    ways = {
        "grid": _grid,
        "one-at-a-time": _one_at_a_time,
        "leave-one-out": _leave_one_out,
        "pairs": _pairs,
    }
    found = dict.fromkeys([baseline, *ways[config.mode](factors)])
    common = _overrides(factors, baseline)
    return tuple(_cell(factors, levels, baseline, common) for levels in found)


def problems_of(config: AblationConfig) -> list[Problem]:
    """Return what makes a study ambiguous or too large, whatever its recipe is."""
    found = [*_keys_of_two(config), *_keys_of_overrides(config), *_levels_for_nothing(config)]
    cells, seeds = count_cells(config), len(config.seeds)
    each = "a training and an evaluation" if config.evaluate is not None else "a training"
    jobs = cells * seeds * (1 if config.evaluate is None else 2)
    if jobs > MAX_JOBS:
        text = (
            f"{cells:,} cells ({config.mode}) with {seeds} seeds, {each} for each, are "
            f"{jobs:,} jobs; at most {MAX_JOBS:,} are taken"
        )
        found.append(Problem("factors", text, "fewer levels or seeds, or mode=one-at-a-time"))
    return found


def _baseline(factors: Mapping[str, Factor]) -> Levels:
    return tuple(factor.baseline_level for factor in factors.values())


def _grid(factors: Mapping[str, Factor]) -> Iterator[Levels]:
    yield from product(*(factor.levels for factor in factors.values()))


def _one_at_a_time(factors: Mapping[str, Factor]) -> Iterator[Levels]:
    baseline = _baseline(factors)
    for place, factor in enumerate(factors.values()):
        for level in factor.levels:
            yield _with(baseline, {place: level})


def _pairs(factors: Mapping[str, Factor]) -> Iterator[Levels]:
    yield from _one_at_a_time(factors)
    baseline = _baseline(factors)
    for (i, one), (j, other) in combinations(enumerate(factors.values()), 2):
        for first, second in product(one.levels, other.levels):
            if first != baseline[i] and second != baseline[j]:
                yield _with(baseline, {i: first, j: second})


def _leave_one_out(factors: Mapping[str, Factor]) -> Iterator[Levels]:
    baseline = _baseline(factors)
    full = tuple(list(factor.levels)[-1] for factor in factors.values())
    yield baseline
    yield full
    for place in range(len(factors)):
        yield _with(full, {place: baseline[place]})


def _with(levels: Levels, changes: Mapping[int, str]) -> Levels:
    return tuple(changes.get(place, level) for place, level in enumerate(levels))


def _cell(
    factors: Mapping[str, Factor], levels: Levels, baseline: Levels, common: Mapping[str, Any]
) -> StudyCell:
    pairs = list(zip(factors, levels, baseline, strict=True))
    is_baseline = levels == baseline
    shown = [f"{name}={level}" for name, level, usual in pairs if is_baseline or level != usual]
    overrides = _overrides(factors, levels)
    return StudyCell(
        name=",".join(shown),
        levels={name: level for name, level, _ in pairs},
        overrides=overrides,
        differs={
            key: value
            for key, value in overrides.items()
            if key not in common or common[key] != value
        },
        is_baseline=is_baseline,
    )


def _overrides(factors: Mapping[str, Factor], levels: Levels) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for factor, level in zip(factors.values(), levels, strict=True):
        found |= factor.levels[level]
    return found


# --- what is refused -----------------------------------------------------------------------------


def _keys_of_two(config: AblationConfig) -> Iterator[Problem]:
    """Two factors that set one key: the later would win, and the cells be misnamed."""
    keys = {name: _keys_of(factor) for name, factor in config.factors.items()}
    for (one, first), (other, second) in combinations(keys.items(), 2):
        for key in sorted(first & second):
            text = f"{one} sets {key} as well; which of the two a cell had could not be told"
            yield Problem(f"factors.{other}", text, "let one of them set it, or make them one")
    for name, found in keys.items():
        if "seed" in found:
            text = "sets seed, with which every cell is repeated"
            yield Problem(f"factors.{name}", text, "write seeds: [0, 1, 2]")
        if "study" in found:
            text = "sets study; all cells stand in one, to be compared there"
            yield Problem(f"factors.{name}", text, "leave it out")


def _keys_of_overrides(config: AblationConfig) -> Iterator[Problem]:
    """An override of what a factor sets: one of them would be without effect."""
    for key, value in config.overrides.items():
        if key == "seed":
            yield Problem("seed", "is what cells are repeated with", "write seeds=[0,1,2]")
        leaves = set(_leaves(key, value)) | {key}
        for name, factor in config.factors.items():
            if clash := sorted(leaves & _keys_of(factor)):
                text = f"is what the factor {name} varies"
                hint = f"leave it out, or give the factor other levels: factors.{name}.levels=..."
                yield Problem(clash[0], text, hint)


def _levels_for_nothing(config: AblationConfig) -> Iterator[Problem]:
    for name, factor in config.factors.items():
        last = list(factor.levels)[-1]
        if config.mode == "leave-one-out" and last == factor.baseline_level:
            text = f"its last level, {last}, is also its baseline: there is nothing to leave out"
            yield Problem(f"factors.{name}", text, "put the level first that means `without it`")


def _keys_of(factor: Factor) -> set[str]:
    return {
        leaf
        for level in factor.levels.values()
        for key, value in level.items()
        for leaf in (key, *_leaves(key, value))
    }


def _leaves(key: str, value: Any) -> Iterable[str]:
    """Return the keys with dots that a value sets, should it be a mapping."""
    if not isinstance(value, dict):
        return [key]
    return [leaf for inner, below in value.items() for leaf in _leaves(f"{key}.{inner}", below)]
