"""How the weights move: optimizer and learning-rate schedule."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from workloads.config.base import Config


class SgdConfig(Config):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.1, gt=0.0, le=100.0)
    """Peak learning rate for the global batch; never scaled behind your back."""
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=1e-4, ge=0.0, le=1.0)
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SgdConfig":
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("nesterov: true needs a momentum above 0")
        return self


class AdamWConfig(Config):
    """AdamW."""

    name: Literal["adamw"]
    lr: float = Field(default=1e-3, gt=0.0, le=100.0)
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=0.01, ge=0.0, le=1.0)


OptimConfig = Annotated[SgdConfig | AdamWConfig, Field(discriminator="name")]


class ConstantConfig(Config):
    """The peak rate throughout, after the warm-up."""

    name: Literal["constant"]
    warmup_epochs: float = Field(default=0.0, ge=0.0)


class CosineConfig(Config):
    """Half a cosine from the peak to `final_lr_ratio` times the peak, per step."""

    name: Literal["cosine"] = "cosine"
    warmup_epochs: float = Field(default=0.0, ge=0.0)
    final_lr_ratio: float = Field(default=0.0, ge=0.0, le=1.0)


class StepConfig(Config):
    """The rate times `gamma` at each milestone."""

    name: Literal["step"]
    warmup_epochs: float = Field(default=0.0, ge=0.0)
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(30, 60, 90), min_length=1)
    """Epochs, ascending."""
    gamma: float = Field(default=0.1, gt=0.0, le=1.0)

    @field_validator("milestones")
    @classmethod
    def _ascending(cls, milestones: tuple[int, ...]) -> tuple[int, ...]:
        if list(milestones) != sorted(set(milestones)):
            raise ValueError(f"got {list(milestones)}; each must be later than the one before")
        return milestones


ScheduleConfig = Annotated[ConstantConfig | CosineConfig | StepConfig, Field(discriminator="name")]
