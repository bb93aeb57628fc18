"""A study: one question, the factors that may answer it, and what is held equal."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from workloads.config.base import Config
from workloads.config.train import Crops

Mode = Literal["grid", "one-at-a-time", "leave-one-out", "pairs"]
"""Which combinations of levels become cells.

`grid`: all. `one-at-a-time`: the baseline, and each other level of each factor alone.
`leave-one-out`: all factors at their last level, that with each factor alone put back to its
baseline level, and the baseline. `pairs`: `one-at-a-time`, and the levels of every two factors
together."""

_WORD = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"
MAX_JOBS = 2000


class Factor(Config):
    """Something that differs between cells: a key of the config, or several that move together.

    Either `key` with a list of values, or named levels, each with the keys that it sets.
    """

    key: str | None = None
    """The key whose value the levels are; null where each level says its own keys."""
    levels: dict[str, dict[str, Any]] = Field(min_length=1)
    """Level's name -> keys with dots -> values, in the order they are listed."""
    baseline: str | None = None
    """Name of the level that the others are compared with; null takes the first."""

    @model_validator(mode="before")
    @classmethod
    def _list_of_values(cls, document: Any) -> Any:
        """Turn `{key: a.b, levels: [1, 2]}` into named levels."""
        if not isinstance(document, dict) or not isinstance(document.get("levels"), list):
            return document
        key = document.get("key")
        if not isinstance(key, str) or not key:
            raise ValueError("a list of levels needs the key that they are values of: key: a.b")
        names = [_level_name(value) for value in document["levels"]]
        if len(set(names)) < len(names):
            raise ValueError(f"two levels have one name: {', '.join(names)}")
        pairs = zip(names, document["levels"], strict=True)
        return {**document, "levels": {name: {key: value} for name, value in pairs}}

    @model_validator(mode="after")
    def _baseline_is_a_level(self) -> "Factor":
        if self.baseline is not None and self.baseline not in self.levels:
            raise ValueError(f"baseline {self.baseline!r} is no level: {', '.join(self.levels)}")
        return self

    @property
    def baseline_level(self) -> str:
        """Name of the level that the others are compared with."""
        return self.baseline or next(iter(self.levels))


def _level_name(value: Any) -> str:
    """Return what a level is called that is only a value."""
    if isinstance(value, Mapping):
        return str(value.get("name", "-".join(f"{k}{v}" for k, v in value.items())))
    if isinstance(value, list):
        return "-".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) or value is None else f"{value}"


class EvaluateConfig(Config):
    """How each finished training of a study is evaluated."""

    checkpoint: Literal["last", "best"] = "last"
    """Which weights; `best` was chosen by the images it is judged on, so `last` is the default."""
    crops: Crops = "centre"


class AblationConfig(Config):
    """A study as one writes it; `orchestrator.jobs.study` makes cells of it."""

    question: str = Field(min_length=1)
    """What the study asks, in a sentence."""
    recipe: str = Field(min_length=1)
    """The training recipe that all cells begin with."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Keys with dots -> values, laid over the recipe in every cell."""
    factors: dict[str, Factor] = Field(min_length=1)
    """By name, in the order that they are shown in."""
    mode: Mode = "one-at-a-time"
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """Every cell is trained once with each."""
    metric: str = "top1"
    """What cells are compared by: a number of the evaluation, such as top1, top5, loss or ece."""
    evaluate: EvaluateConfig | None = EvaluateConfig()
    """null compares what the trainings found in their own last validation."""
    pack: bool = True
    """Let cells of one worker share a process one after the other, so that starting costs once."""
    max_parallel: int | None = Field(default=None, ge=1)
    """Most trainings and evaluations of the study at once; null takes what the cluster has."""

    @model_validator(mode="after")
    def _names_are_words(self) -> "AblationConfig":
        import re

        words = [*self.factors, *(level for f in self.factors.values() for level in f.levels)]
        for word in words:
            if not re.fullmatch(_WORD, word):
                raise ValueError(
                    f"{word!r} cannot name a factor or level: letters, digits and . _ + - only"
                )
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds must differ and not be negative; got {list(self.seeds)}")
        return self
