"""Whether every point of a search space can be trained, told before anything runs.

The corners are tried: the ends of each range, each choice, in combination where there are not too
many. What is refused is named by as few of its values as are enough to be refused.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.jobs.space import Values, exists, trial_config, trial_overrides
from orchestrator.jobs.space_text import SOURCE, format_word, same, without_name
from workloads.config.errors import ConfigError, Problem
from workloads.config.sweep import Choice, Dimension, Uniform, Value
from workloads.config.train import TrainConfig

CORNERS = 256
"""Most combinations of corners that are tried; of more, each corner alone and some drawn."""
_MOST_PROBLEMS = 8
_UNKNOWN = "unknown key"

_NOT_SEARCHED = {
    "data": "trials are compared on the same images",
    "validation": "trials are compared by the same validation",
    "init.weights": "the weights to begin with are looked up once, when the sweep is submitted",
    "job": "it is how a trial runs, not what it trains; see --workers and --max-parallel",
    "network": "it stands for many keys at once; search those of model.backbone and model.head",
    "study": "it is where results are kept, not what is trained",
    "description": "it is a text",
    "published": "it is a text",
}
"""Key, with all below it -> why no search may vary it."""


def refuse_keys(space: Sequence[Dimension], overrides: Sequence[str]) -> None:
    """Refuse keys that no search may vary, and those that an override sets.

    Raises:
        ConfigError: Names each.
    """
    given = {without_name(text.partition("=")[0].strip()) for text in overrides}
    problems = []
    for key in dict.fromkeys(dimension.key for dimension in space):
        for place, reason in _NOT_SEARCHED.items():
            if key == place or key.startswith(f"{place}."):
                problems.append(Problem(key, "cannot be searched", reason))
        if key in given:
            hint = "leave out one of the two"
            problems.append(Problem(key, "is given and searched", hint))
    if problems:
        raise ConfigError(SOURCE, problems)


def check_points(
    space: Sequence[Dimension],
    base: Mapping[str, Any],
    check: Callable[[TrainConfig], None],
) -> None:
    """Try the corners of a space.

    Args:
        space: Dimensions in `in_order`.
        base: What the values are laid over, valid by itself.
        check: Raises ConfigError for a config that is valid and cannot be trained all the same.

    Raises:
        ConfigError: Names the values that cannot be, and why.
    """

    def problem_of(values: Values) -> Problem | None:
        try:
            check(trial_config(base, values))
        except ConfigError as error:
            return error.problems[0]
        return None

    found: dict[tuple[str, str], Problem] = {}
    for values in _corners(space):
        problem = problem_of(values)
        if problem is None or _told(problem, values, found):
            continue
        fewest = _fewest(values, problem_of)
        reason = problem_of(fewest) or problem
        found.setdefault(
            (" ".join(trial_overrides(fewest)), reason.path),
            _in_words(space, fewest, reason, problem_of),
        )
        if len(found) >= _MOST_PROBLEMS:
            break
    if found:
        raise ConfigError(SOURCE, list(found.values()))


def _told(problem: Problem, values: Values, found: Mapping[tuple[str, str], Problem]) -> bool:
    """Whether it was said already: of some of these values, or of a key that is not there."""
    said = set(trial_overrides(values))
    return any(
        path == problem.path
        and (problem.message == _UNKNOWN or said.issuperset(overrides.split(" ")))
        for overrides, path in found
    )


def corner_values(dimension: Dimension) -> tuple[Value, ...]:
    """Return the ends of a range, or all of a choice."""
    domain = dimension.domain
    return domain.values if isinstance(domain, Choice) else (domain.low, domain.high)


def _corners(space: Sequence[Dimension]) -> Iterator[dict[str, Value]]:
    """Yield points with all values at corners; each corner occurs."""
    combinations = list(itertools.islice(_below({}, list(space)), CORNERS + 1))
    if len(combinations) <= CORNERS:
        yield from combinations
        return
    for dimension in space:
        for value in corner_values(dimension):
            yield _around(space, dimension, value)
    rng = random.Random(0)
    for _ in range(CORNERS):
        yield _point(space, lambda d: rng.choice(corner_values(d)))


def _below(values: dict[str, Value], left: list[Dimension]) -> Iterator[dict[str, Value]]:
    if not left:
        yield values
        return
    first, *others = left
    if not exists(first, values):
        yield from _below(values, others)
        return
    for value in corner_values(first):
        yield from _below({**values, first.key: value}, others)


def _around(space: Sequence[Dimension], dimension: Dimension, value: Value) -> dict[str, Value]:
    """Return a point where a dimension exists and has a value, all else at its first corner."""
    wanted: dict[str, Value] = {dimension.key: value}
    waiting = [dimension]
    while waiting:
        for key, allowed in waiting.pop().when.items():
            if key in wanted:
                continue
            parent, wanted[key] = next(
                (other, choice)
                for other in space
                if other.key == key
                for choice in corner_values(other)
                if any(same(choice, v) for v in allowed)
            )
            waiting.append(parent)
    return _point(space, lambda d: wanted.get(d.key, corner_values(d)[0]))


def _point(space: Sequence[Dimension], value_of: Callable[[Dimension], Value]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for dimension in space:
        if exists(dimension, values):
            values[dimension.key] = value_of(dimension)
    return values


def _fewest(values: Values, problem_of: Callable[[Values], Problem | None]) -> dict[str, Value]:
    """Return some of the values that are refused by themselves, none of which could be left out."""
    kept = dict(values)
    for key in reversed(list(values)):
        fewer = {k: v for k, v in kept.items() if k != key}
        if problem_of(fewer) is not None:
            kept = fewer
    return kept


def _in_words(
    space: Sequence[Dimension],
    values: Values,
    problem: Problem,
    problem_of: Callable[[Values], Problem | None],
) -> Problem:
    """Say which values are refused, why, and what to write instead where that is plain."""
    hint = problem.hint
    dimension = next((d for d in space if d.key == problem.path and d.key in values), None)
    if dimension is not None and problem.message == _UNKNOWN:
        hint = _condition_that_helps(space, dimension, problem_of) or hint
    if dimension is not None and "a whole number" in hint and isinstance(dimension.domain, Uniform):
        hint = f"{hint}: int({dimension.domain.low:g}, {dimension.domain.high:g})"
    if len(values) == 1 and problem.path in values:
        return Problem(problem.path, problem.message, hint)
    message = f"{problem.path}: {problem.message}" if problem.path else problem.message
    return Problem(" ".join(trial_overrides(values)), message, hint)


def _condition_that_helps(
    space: Sequence[Dimension],
    dimension: Dimension,
    problem_of: Callable[[Values], Problem | None],
) -> str:
    """Return the condition under which a dimension means something, if the space has it."""
    value = corner_values(dimension)[0]
    for parent in space:
        if dimension.key.startswith(f"{parent.key}.") and isinstance(parent.domain, Choice):
            fitting = [
                choice
                for choice in parent.domain.values
                if problem_of({parent.key: choice, dimension.key: value}) is None
            ]
            if len(fitting) == 1:
                return f"write it with: if {parent.key}={format_word(fitting[0])}"
            if fitting:
                words = ", ".join(map(format_word, fitting))
                return f"write it with: if {parent.key} in ({words})"
    return ""
