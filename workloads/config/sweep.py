"""A search for good settings: what may vary, how it is searched, and what is good."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from workloads.config.base import Config

Value = bool | int | float | str | None


class Uniform(Config):
    """A number drawn evenly between `low` and `high`; on a logarithmic scale if `log`."""

    kind: Literal["uniform"] = "uniform"
    low: float
    high: float
    log: bool = False
    step: float | None = Field(default=None, gt=0.0)
    """Distance of the values that may be drawn; null draws any."""

    @model_validator(mode="after")
    def _range_is_one(self) -> "Uniform":
        _check_range(self.low, self.high, log=self.log, step=self.step)
        return self


class Integer(Config):
    """A whole number from `low` to `high`, both included."""

    kind: Literal["integer"] = "integer"
    low: int
    high: int
    log: bool = False
    step: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _range_is_one(self) -> "Integer":
        _check_range(self.low, self.high, log=self.log, step=self.step)
        return self


class Choice(Config):
    """One of several values; a grid takes each."""

    kind: Literal["choice"] = "choice"
    values: tuple[Value, ...] = Field(min_length=1)


Domain = Annotated[Uniform | Integer | Choice, Field(discriminator="kind")]


class Dimension(Config):
    """A key of the config that trials differ in."""

    key: str = Field(min_length=1)
    """With dots: `optim.lr`, `model.head.pooling.num_iters`."""
    domain: Domain
    when: dict[str, tuple[Value, ...]] = Field(default_factory=dict)
    """Other keys of the space -> values: the dimension exists only in trials where each such key
    has one of its values, as `num_iters` does where the pooling is isqrt."""


class Objective(Config):
    """What a search makes large or small."""

    metric: str = "val/top1"
    """A metric that trainings record at each epoch, or of their result, such as model/macs."""
    direction: Literal["max", "min"] = "max"


class AshaConfig(Config):
    """Stop the worse part of the trials at epochs that multiply (Li et al., 2020)."""

    name: Literal["asha"] = "asha"
    grace_epochs: int = Field(default=1, ge=1)
    reduction_factor: int = Field(default=3, ge=2)


class HyperBandConfig(Config):
    """Brackets of successive halving, from many short trials to few long ones (Li et al., 2018)."""

    name: Literal["hyperband"] = "hyperband"
    reduction_factor: int = Field(default=3, ge=2)


class MedianConfig(Config):
    """Stop a trial that is worse than the median of the others at the same epoch."""

    name: Literal["median"] = "median"
    grace_epochs: int = Field(default=2, ge=1)
    min_trials: int = Field(default=3, ge=1)
    """Trials that must have got as far before anything is stopped."""


class PbtConfig(Config):
    """Population based training: weak trials go on from strong ones with other settings
    (Jaderberg et al., 2017)."""

    name: Literal["pbt"] = "pbt"
    every_epochs: int = Field(default=2, ge=1)
    quantile: float = Field(default=0.25, gt=0.0, le=0.5)
    """Share of the trials that is replaced, and that is copied."""
    resample_probability: float = Field(default=0.25, ge=0.0, le=1.0)


SchedulerConfig = Annotated[
    AshaConfig | HyperBandConfig | MedianConfig | PbtConfig, Field(discriminator="name")
]


class SweepConfig(Config):
    """A search over one recipe."""

    recipe: str = Field(min_length=1)
    base: dict[str, Any]
    """The recipe with its overrides, valid as it stands. What follows from other values is left
    unsaid, so that it follows from a trial's: `orchestrator.jobs.space.trial_config`."""
    space: tuple[Dimension, ...] = Field(min_length=1)
    num_trials: int = Field(default=20, ge=1, le=10_000)
    """Trials; a grid has as many as it has points, times this."""
    search: Literal["tpe", "random", "grid"] = "tpe"
    scheduler: SchedulerConfig | None = None
    """null trains every trial to its end."""
    objectives: tuple[Objective, ...] = Field(default=(Objective(),), min_length=1, max_length=3)
    """The first one decides where a single number is needed; several give a Pareto front."""
    seed: int = Field(default=0, ge=0)
    """Of the search; every trial trains with the seed of `base`."""
    max_parallel: int | None = Field(default=None, ge=1)
    """Most trials at once; null takes what the cluster has."""
    trial_workers: int = Field(default=1, ge=1, le=4096)
    """Data-parallel workers of each trial; the job holds a multiple of them."""


def _check_range(low: float, high: float, *, log: bool, step: float | None) -> None:
    """Raise ValueError unless there is something to draw."""
    if low >= high:
        raise ValueError(f"the range from {low:g} to {high:g} holds nothing to choose from")
    if log and low <= 0:
        raise ValueError(f"a logarithmic range begins above 0; got {low:g}")
    if log and step not in (None, 1):
        raise ValueError("a logarithmic range has no step")
