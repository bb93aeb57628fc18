"""How the weights move: optimizer and learning-rate schedule."""

from typing import Annotated, Literal

from pydantic import Field

from workloads.config.base import Config


class SgdConfig(Config):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.1, gt=0.0, le=100.0)
    """Peak learning rate for the global batch; never scaled behind your back."""
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=1e-4, ge=0.0, le=1.0)
    nesterov: bool = False


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
    milestones: tuple[int, ...] = (30, 60, 90)
    """Epochs, ascending."""
    gamma: float = Field(default=0.1, gt=0.0, le=1.0)


ScheduleConfig = Annotated[ConstantConfig | CosineConfig | StepConfig, Field(discriminator="name")]
