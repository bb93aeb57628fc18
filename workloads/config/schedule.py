"""Learning-rate schedules: one small class per shape, as multiples of the peak rate.

Written in the papers' terms; `workloads.config.rates` computes them.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from workloads.config.base import Config


class ScheduleBase(Config):
    """What every schedule can say."""

    warmup_epochs: float = Field(default=0.0, ge=0.0)
    """Linear rise to the peak; may be a fraction of an epoch."""
    warmup_start: float = Field(default=0.0, ge=0.0, le=1.0)
    """Where the rise begins, as a share of the peak; at 0 the first step (or epoch) has one part of
    it."""
    per: Literal["step", "epoch"] = "step"
    """The rate changes with each optimizer step, or stays the same within an epoch."""


class ConstantConfig(ScheduleBase):
    """The peak rate throughout, after the warm-up."""

    name: Literal["constant"]


class CosineConfig(ScheduleBase):
    """Half a cosine from the peak to `final_lr_ratio` times the peak."""

    name: Literal["cosine"] = "cosine"
    final_lr_ratio: float = Field(default=0.0, ge=0.0, le=1.0)
    cooldown_epochs: int = Field(default=0, ge=0)
    """Epochs at the end that stay at the final rate; they count among `epochs`."""
    warmup_overlaps: bool = False
    """The curve runs from epoch 0 and the warm-up hides its beginning (timm), instead of starting
    when the warm-up is over."""


class LinearConfig(ScheduleBase):
    """A straight line from the peak to `final_lr_ratio` times the peak."""

    name: Literal["linear"]
    final_lr_ratio: float = Field(default=0.0, ge=0.0, le=1.0)


class PolyConfig(ScheduleBase):
    """(1 - t)^power, t from 0 at the end of the warm-up to 1 at the end of the training."""

    name: Literal["poly"]
    power: float = Field(default=2.0, gt=0.0, le=100.0)


class GcpPolyConfig(ScheduleBase):
    """LRfast and LRadju of the CVPR 2020 paper: (1 - (e - 1) / horizon)^power, per epoch e.

    The released code counts e from 0, so that the first epoch lies above the peak; the paper's
    text counts from 1.
    """

    name: Literal["gcp_poly"]
    per: Literal["epoch"] = "epoch"
    horizon: int = Field(default=52, ge=1)
    power: float = Field(default=11.0, gt=0.0, le=100.0)
    first_epoch: Literal[0, 1] = 0


class StepConfig(ScheduleBase):
    """The rate times `gamma` at each milestone."""

    name: Literal["step"]
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(30, 60, 90), min_length=1)
    """Epochs, ascending."""
    gamma: float = Field(default=0.1, gt=0.0, le=1.0)

    @field_validator("milestones")
    @classmethod
    def _ascending(cls, milestones: tuple[int, ...]) -> tuple[int, ...]:
        if list(milestones) != sorted(set(milestones)):
            raise ValueError(f"got {list(milestones)}; each must be later than the one before")
        return milestones


class ExponentialConfig(ScheduleBase):
    """The rate times `gamma` with each epoch after the warm-up."""

    name: Literal["exponential"]
    per: Literal["step", "epoch"] = "epoch"
    gamma: float = Field(default=0.98, gt=0.0, le=1.0)


class PiecewiseConfig(ScheduleBase):
    """Straight lines between points (epoch, multiple of the peak); level after the last."""

    name: Literal["piecewise"]
    epochs: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=2)
    """Ascending, the first 0."""
    factors: tuple[Annotated[float, Field(ge=0.0, le=100.0)], ...] = Field(min_length=2)
    """Multiples of the peak rate, one for each epoch named."""

    @model_validator(mode="after")
    def _points(self) -> "PiecewiseConfig":
        if len(self.epochs) != len(self.factors):
            raise ValueError(
                f"epochs has {len(self.epochs)} entries and factors {len(self.factors)}"
            )
        if self.epochs[0] != 0 or list(self.epochs) != sorted(set(self.epochs)):
            raise ValueError(f"got epochs {list(self.epochs)}; they begin with 0 and ascend")
        return self


class CosineDecayConfig(ScheduleBase):
    """A line times a cosine: (1 - t) (1 + cos(0.94 pi t)) / 2 + 1e-5, of the TPAMI 2023 code.

    After a warm-up its cosine is further than its line, as in that code, and begins below the peak.
    """

    name: Literal["cosine_decay"]


ScheduleConfig = Annotated[
    ConstantConfig
    | CosineConfig
    | LinearConfig
    | PolyConfig
    | GcpPolyConfig
    | StepConfig
    | ExponentialConfig
    | PiecewiseConfig
    | CosineDecayConfig,
    Field(discriminator="name"),
]
