"""How the weights move: the optimizer, and which weights move how."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workloads.config.base import Config

Part = Literal["features", "reduction", "pooling", "classifier"]
"""Parts of a network; `classifier` is all that follows the pooling, and a class token's."""

Factor = Annotated[float, Field(ge=0.0, le=100_000.0)]


class LrFactorsConfig(Config):
    """Multiples of the learning rate for the parts of the network."""

    features: Factor = 1.0
    reduction: Factor = 1.0
    pooling: Factor = 1.0
    classifier: Factor = 1.0
    """5 to 20 in fine-grained fine-tuning, 1000 in the first stage of B-CNN."""


class OptimBase(Config):
    """What every optimizer can say."""

    weight_decay: float = Field(default=1e-4, ge=0.0, le=1.0)
    decay_norms_and_biases: bool = True
    """Weight decay acts on normalisation layers and biases too, as in the GCP papers' code."""
    no_decay_parts: tuple[Part, ...] = ()
    """Parts of the network without weight decay."""
    lr_factors: LrFactorsConfig = LrFactorsConfig()


class SgdConfig(OptimBase):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.1, gt=0.0, le=100.0)
    """Peak learning rate for the global batch; never scaled behind your back."""
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SgdConfig":
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("nesterov: true needs a momentum above 0")
        return self


class LarsConfig(OptimBase):
    """Layer-wise adaptive rates (You, Gitman and Ginsburg, 2017).

    Where weight decay does not act, neither does the adaptive rate.
    """

    name: Literal["lars"]
    lr: float = Field(default=10.0, gt=0.0, le=1000.0)
    """Peak learning rate for the global batch."""
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    trust_coefficient: float = Field(default=1e-3, gt=0.0, le=1.0)
    eps: float = Field(default=0.0, ge=0.0, le=1.0)
    """Added to the norms in the denominator."""
    decay_norms_and_biases: bool = False


class AdamWConfig(OptimBase):
    """AdamW (Loshchilov and Hutter, 2019)."""

    name: Literal["adamw"]
    lr: float = Field(default=1e-3, gt=0.0, le=100.0)
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    eps: float = Field(default=1e-8, gt=0.0, le=1.0)
    weight_decay: float = Field(default=0.01, ge=0.0, le=1.0)


OptimConfig = Annotated[SgdConfig | LarsConfig | AdamWConfig, Field(discriminator="name")]
