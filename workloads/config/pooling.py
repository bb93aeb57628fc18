"""The poolings: one small class for each, told apart by `name`.

Every field is a keyword of the layer of that name in `workloads.pooling`, with the same default.
"""

from typing import Annotated, Literal

from pydantic import Field

from workloads.config.base import Config

VectorOrder = Literal["upper_rows", "upper_columns", "full"]
"""How a matrix becomes a vector: the upper triangle row by row (PyTorch's published code) or column
by column (MatConvNet's), diagonal included and nothing scaled; or all entries, row by row."""


class PoolingBase(Config):
    """What every pooling's config can say."""

    @property
    def min_positions(self) -> int:
        """Positions without which it has nothing to pool."""
        return 1

    @property
    def has_weights(self) -> bool:
        """Whether it has weights of its own, which are trained."""
        return False


class GapConfig(PoolingBase):
    """Global average pooling, the first-order baseline."""

    name: Literal["gap"]
    grid: int = Field(default=1, ge=1, le=16)
    """Cells per side that are averaged apart and put side by side; 1 is global, 7 is VGG's."""


class _CovarianceConfig(PoolingBase):
    """What all poolings of a covariance matrix share."""

    centred: bool = True
    """Subtract each channel's mean over the positions. False pools the second moment."""
    vector: VectorOrder = "upper_rows"

    @property
    def min_positions(self) -> int:
        """The covariance of one position is zero."""
        return 2 if self.centred else 1


class CovConfig(_CovarianceConfig):
    """The covariance itself, without normalisation."""

    name: Literal["cov"]


class IsqrtConfig(_CovarianceConfig):
    """iSQRT-COV: covariance, normalised by a matrix square root in Newton-Schulz iterations."""

    name: Literal["isqrt"] = "isqrt"
    num_iters: int = Field(default=5, ge=1, le=100)
    """Newton-Schulz updates K; 5 in the papers. K is a spectral filter, not an accuracy knob."""
    prenorm: Literal["trace", "frobenius"] = "trace"
    """What brings the eigenvalues into [0, 1] before the iteration; undone after it."""


class MpnEigConfig(_CovarianceConfig):
    """MPN-COV: eigenvalues of the covariance raised to a power."""

    name: Literal["mpn_eig"]
    alpha: float = Field(default=0.5, gt=0, le=2)
    """The power; 0.5 in the papers."""
    eps: float = Field(default=0.0, ge=0, le=1)
    """Added to every eigenvalue before the power."""


class LogEuclideanConfig(_CovarianceConfig):
    """Matrix logarithm of the covariance plus a ridge."""

    name: Literal["log_euclidean"]
    ridge: float = Field(default=1e-3, gt=0, le=1)
    """Added to every eigenvalue, as a part of their mean."""


class EpnConfig(_CovarianceConfig):
    """Element-wise signed square root of the covariance, then an l2 norm of one."""

    name: Literal["epn"]
    eps: float = Field(default=1e-8, gt=0, le=1e-2)
    """Inside the root: bounds its derivative at zero."""
    l2: Literal["vector", "columns", "none"] = "vector"
    """What is brought to length one: the vector, or each column of the matrix before it."""


class SvpnConfig(_CovarianceConfig):
    """Singular-value power normalisation by power iteration (second-order transformers)."""

    name: Literal["svpn"]
    alpha: float = Field(default=0.5, gt=0, le=1)
    num_values: int = Field(default=1, ge=1, le=16)
    """Largest singular values that are normalised apart."""
    num_iters: int = Field(default=1, ge=1, le=20)
    """Steps of the power iteration per singular value."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """On the entries of the vector; 0.5 and 0.7 in the small and base networks."""

    @property
    def has_weights(self) -> bool:
        """It has."""
        return True


class LayerNormConfig(_CovarianceConfig):
    """Layer normalisation of each row of the covariance (second-order transformers)."""

    name: Literal["layer_norm"]

    @property
    def has_weights(self) -> bool:
        """It has."""
        return True


class ScaleNormConfig(_CovarianceConfig):
    """The covariance times 1/sqrt(channels), fixed or learnt (second-order transformers)."""

    name: Literal["scale_norm"]
    learnable: bool = False

    @property
    def has_weights(self) -> bool:
        """The factor, where it is learnt."""
        return self.learnable


class DropCovConfig(_CovarianceConfig):
    """DropCov: covariance of features whose channels are dropped at an adaptive rate."""

    name: Literal["dropcov"]
    adaptive: bool = True
    """Whether the rate follows the features, as published, or is `rate`."""
    rate: float = Field(default=0.5, ge=0, le=1)
    """The rate where it is not adaptive."""
    gate: Literal["train", "always", "off"] = "train"
    """When channels are weighted by their importance; the published code does in training only."""
    max_rate: float = Field(default=1.0, ge=0, le=1)
    """Cap of the rate. 1 is published; at a rate of 1 nothing of a batch is left to learn from."""

    @property
    def has_weights(self) -> bool:
        """It has."""
        return True


class BcnnConfig(PoolingBase):
    """Bilinear pooling (B-CNN): second moment, signed square root, l2."""

    name: Literal["bcnn"]
    eps: float = Field(default=1e-8, gt=0, le=1e-2)
    vector: VectorOrder = "full"


class CbpConfig(PoolingBase):
    """Compact bilinear pooling: a random sketch of the second moment, signed square root, l2."""

    name: Literal["cbp"]
    sketch: Literal["tensor_sketch", "random_maclaurin"] = "tensor_sketch"
    sketch_size: int = Field(default=8192, ge=1, le=1_000_000)
    """Width of the vector."""
    seed: int = Field(default=1, ge=0, lt=2**31)
    """Of the random sketch, which is saved with the weights."""
    eps: float = Field(default=1e-8, gt=0, le=1e-2)


class CrossCovConfig(PoolingBase):
    """Multi-head cross-covariance of two projections of tokens (second-order transformers)."""

    name: Literal["cross_cov"]
    num_heads: int = Field(default=6, ge=1, le=64)
    head_width: int = Field(default=24, ge=1, le=512)
    normaliser: Literal["none", "epn", "svpn", "layer_norm", "scale_norm"] = "none"
    centred: bool = True
    """Subtract each projected channel's mean over the tokens."""
    adaptive: bool = False
    """Whether the rate of the channel dropout follows the features, as in DropCov."""
    rate: float = Field(default=0.0, ge=0, le=1)
    """Rate of the channel dropout where it is not adaptive; 0 drops nothing."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """On the entries of the vector; 0.5 in the published DropCov transformers."""

    @property
    def min_positions(self) -> int:
        """The covariance of one position is zero."""
        return 2 if self.centred else 1

    @property
    def has_weights(self) -> bool:
        """It has."""
        return True


PoolingConfig = Annotated[
    GapConfig
    | CovConfig
    | IsqrtConfig
    | MpnEigConfig
    | LogEuclideanConfig
    | EpnConfig
    | SvpnConfig
    | LayerNormConfig
    | ScaleNormConfig
    | DropCovConfig
    | BcnnConfig
    | CbpConfig
    | CrossCovConfig,
    Field(discriminator="name"),
]
