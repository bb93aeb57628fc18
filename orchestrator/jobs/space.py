"""Search spaces: how they are written, what follows from their conditions, and a trial's config.

    optim.lr=loguniform(1e-3, 1)
    model.head.pooling=choice(gap, isqrt, dropcov)
    model.head.pooling.num_iters=int(1, 7, 2) if model.head.pooling=isqrt
    optim.momentum=uniform(0.5, 0.99) if optim in (sgd, lars)

Values follow the rules of recipes: `1e-3` is a number, `null` is none, and text with other signs
than letters, digits and `_ . / + -` stands in quotes. A key may stand twice, under conditions that
exclude each other.
"""

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.jobs.space_text import (
    format_dimension,
    format_domain,
    format_value,
    format_word,
    refused,
    same,
)
from workloads.config.document import apply_overrides
from workloads.config.errors import did_you_mean
from workloads.config.sweep import Choice, Dimension, Domain, Integer, SweepConfig, Value
from workloads.config.train import TrainConfig
from workloads.config.validate import validate

Values = Mapping[str, Value]
"""What a search chose for one trial: key -> value, of the dimensions that exist in it."""

MAX_GRID = 10_000
"""Points of a grid; a larger one is no plan."""


# --- what a space is -----------------------------------------------------------------------------


def trial_overrides(values: Values) -> tuple[str, ...]:
    """Return what a trial chose as overrides, such as `optim.lr=0.05`, for a command line too."""
    return tuple(f"{key}={format_word(value)}" for key, value in values.items())


def trial_cell(values: Values) -> str:
    """Return what sets a trial apart, for people: last words of the keys, numbers rounded."""
    return ",".join(
        f"{key.rpartition('.')[2]}={format_value(value)}" for key, value in values.items()
    )


def label(dimension: Dimension) -> str:
    """Return a name that no other dimension of its space has: key and condition."""
    _, _, condition = format_dimension(dimension).partition(
        f"{format_domain(dimension.domain)} if "
    )
    return f"{dimension.key} if {condition}" if condition else dimension.key


def exists(dimension: Dimension, values: Values) -> bool:
    """Whether a dimension exists in a trial with these values of the dimensions before it."""
    return all(
        key in values and any(same(values[key], value) for value in allowed)
        for key, allowed in dimension.when.items()
    )


def in_order(space: Sequence[Dimension]) -> tuple[Dimension, ...]:
    """Return the dimensions with those that others depend on before them, else as they stand.

    Raises:
        ConfigError: A condition that cannot be decided, or two dimensions of one key that may
            exist together.
    """
    keys = {dimension.key for dimension in space}
    for one, other in itertools.combinations(space, 2):
        if one.key == other.key and not _exclude_each_other(one, other):
            hint = f"give conditions that exclude each other, as in {one.key}=... if optim=sgd"
            raise refused(one.key, "stands twice, and both would hold", hint)
    for dimension in space:
        for key, allowed in dimension.when.items():
            _check_condition(dimension, key, allowed, space)
    ordered: list[Dimension] = []
    left = list(space)
    while left:
        waited_for = {dimension.key for dimension in left}
        ready = next((d for d in left if not waited_for & set(d.when)), None)
        if ready is None:
            names = ", ".join(sorted(keys & waited_for))
            raise refused(names, "depend on each other in a circle")
        ordered.append(ready)
        left.remove(ready)
    return tuple(ordered)


def grid_values(domain: Domain) -> list[Value] | None:
    """Return all values of a domain; None where there are too many to list, or no step."""
    if isinstance(domain, Choice):
        return list(domain.values)
    if domain.step is None or domain.log:
        return None
    count = math.floor((domain.high - domain.low) / domain.step + 1e-9) + 1
    if count > MAX_GRID:
        return None
    if isinstance(domain, Integer):
        return [domain.low + i * domain.step for i in range(count)]
    steps = [float(f"{domain.low + i * domain.step:.12g}") for i in range(count)]
    return [min(max(value, domain.low), domain.high) for value in steps]


def grid(space: Sequence[Dimension]) -> Iterator[dict[str, Value]]:
    """Yield all points of a space in `in_order`, the last dimension varying fastest.

    All its domains can be listed (`grid_values`).
    """
    yield from _below({}, list(space))


def sample(space: Sequence[Dimension], rng: random.Random) -> dict[str, Value]:
    """Draw a point of a space in `in_order`, each dimension by itself."""
    values: dict[str, Value] = {}
    for dimension in space:
        if exists(dimension, values):
            values[dimension.key] = _draw(dimension.domain, rng)
    return values


def num_trials(sweep: SweepConfig) -> int:
    """Return how many trials a search makes in all."""
    if sweep.search != "grid":
        return sweep.num_trials
    return sweep.num_trials * sum(1 for _ in grid(sweep.space))


# --- a trial's config ----------------------------------------------------------------------------


def trial_config(base: Mapping[str, Any], values: Values) -> TrainConfig:
    """Return the config of a trial: its values laid over the sweep's base, as overrides are.

    It equals what `gcpctl submit train RECIPE KEY=VALUE...` would train.

    Raises:
        ConfigError: The values do not go together; names each key.
    """
    overrides = trial_overrides(values)
    source = f"the trial with {' '.join(overrides)}" if overrides else "the recipe"
    return validate(TrainConfig, apply_overrides(dict(base), overrides), source)


def config_sha256(config: TrainConfig) -> str:
    """Return the digest that jobs have as `gcpctl.config_sha256`."""
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_condition(
    dimension: Dimension, key: str, allowed: tuple[Value, ...], space: Sequence[Dimension]
) -> None:
    """Refuse a condition on what is not searched, or that no trial can meet."""
    text = format_dimension(dimension)
    parents = [d for d in space if d.key == key]
    if not parents:
        hint = did_you_mean(key, {d.key for d in space if isinstance(d.domain, Choice)})
        hint = hint or f"leave it out, or search {key} as well"
        raise refused(text, f"{key} is not searched, so the condition decides nothing", hint)
    values: list[Value] = []
    for parent in parents:
        if not isinstance(parent.domain, Choice):
            raise refused(text, f"{key} is no choice", "conditions are on choices")
        values += parent.domain.values
    for value in allowed:
        if not any(same(value, other) for other in values):
            message = f"{key} is never {format_word(value)}"
            raise refused(text, message, did_you_mean(format_word(value), map(format_word, values)))


def _exclude_each_other(one: Dimension, other: Dimension) -> bool:
    return any(
        not any(same(a, b) for a in one.when[key] for b in other.when[key])
        for key in one.when.keys() & other.when.keys()
    )


def _below(values: dict[str, Value], left: list[Dimension]) -> Iterator[dict[str, Value]]:
    """Yield the points that begin with `values`."""
    if not left:
        yield dict(values)
        return
    first, *others = left
    if not exists(first, values):
        yield from _below(values, others)
        return
    for value in grid_values(first.domain) or ():
        yield from _below({**values, first.key: value}, others)


def _draw(domain: Domain, rng: random.Random) -> Value:
    if isinstance(domain, Choice):
        return domain.values[rng.randrange(len(domain.values))]
    low, high = float(domain.low), float(domain.high)
    if isinstance(domain, Integer):
        if domain.log:
            drawn = math.exp(rng.uniform(math.log(low), math.log(high + 1)))
            return min(int(drawn), domain.high)
        return rng.randrange(domain.low, domain.high + 1, domain.step)
    if domain.step is not None:
        values = grid_values(domain)
        return rng.choice(values) if values else rng.uniform(low, high)
    drawn = (
        math.exp(rng.uniform(math.log(low), math.log(high)))
        if domain.log
        else rng.uniform(low, high)
    )
    return min(max(drawn, low), high)
