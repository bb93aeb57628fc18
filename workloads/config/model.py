"""The network: a backbone, then a head of reduction, pooling and classifier."""

from typing import Annotated, Literal

from pydantic import Field

from workloads.config.base import Config


class SmallResNetConfig(Config):
    """A residual network for images of 8 to 64 pixels: 3x3 stem, no max-pooling."""

    name: Literal["small_resnet"] = "small_resnet"
    width: int = Field(default=32, ge=4, le=512)
    """Channels of the first stage; each later stage doubles them."""
    blocks: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(
        default=(1, 1), min_length=1, max_length=4
    )
    """Residual blocks per stage; every stage after the first halves the map."""
    last_stride: Literal[1, 2] = 2
    """Stride of the last stage; 1 keeps its map twice as large (more positions to pool)."""

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides that an image goes through, each of which rounds its side up."""
        later = [2] * (len(self.blocks) - 1)
        return (*later[:-1], self.last_stride) if later else ()


class ResNet18Config(Config):
    """torchvision's ResNet-18 without its pooling and classifier."""

    name: Literal["resnet18"]
    last_stride: Literal[1, 2] = 2
    """Stride of the last stage; 1 gives 14x14 maps at 224 px, as the GCP papers use."""

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides that an image goes through, each of which rounds its side up."""
        return (2, 2, 2, 2, self.last_stride)


BackboneConfig = Annotated[SmallResNetConfig | ResNet18Config, Field(discriminator="name")]


class GapConfig(Config):
    """Global average pooling, the baseline."""

    name: Literal["gap"]


class IsqrtConfig(Config):
    """iSQRT-COV: covariance, normalised by a matrix square root in Newton-Schulz iterations."""

    name: Literal["isqrt"] = "isqrt"
    num_iters: int = Field(default=5, ge=1, le=12)
    """Newton-Schulz updates K; 5 in the papers. K is a spectral filter, not an accuracy knob.
    Above 12 nothing is gained, and rounding grows with every update."""


PoolingConfig = Annotated[GapConfig | IsqrtConfig, Field(discriminator="name")]


class HeadConfig(Config):
    """1x1 reduction, pooling and one linear classifier."""

    reduced_channels: int | None = Field(default=32, ge=2, le=2048)
    """Channels after the 1x1 convolution, BN and ReLU; null leaves the reduction out."""
    pooling: PoolingConfig = IsqrtConfig()


class ModelConfig(Config):
    """Backbone and head."""

    backbone: BackboneConfig = SmallResNetConfig()
    head: HeadConfig = HeadConfig()

    def map_side(self, image_size: int) -> int:
        """Return the side of the map that is pooled, for square images of `image_size` pixels."""
        side = image_size
        for stride in self.backbone.strides:
            side = -(-side // stride)
        return side
