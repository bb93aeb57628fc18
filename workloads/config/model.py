"""The network: a backbone, then a head of reduction, pooling and classifier."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workloads.config.backbones import BackboneConfig, SmallResNetConfig
from workloads.config.base import Config
from workloads.config.pooling import (
    CrossCovConfig,
    DropCovConfig,
    IsqrtConfig,
    PoolingConfig,
)


class HeadConfig(Config):
    """1x1 reduction, pooling and a linear classifier."""

    reduced_channels: int | None = Field(default=32, ge=2, le=4096)
    """Channels after the 1x1 convolution, BN and activation; null leaves the reduction out."""
    activation: Literal["relu", "relu6", "none"] = "relu"
    """After the reduction's BN; ReLU6 in MobileNetV2 and ShuffleNetV2, none on tokens."""
    pooling: PoolingConfig = IsqrtConfig()
    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field(default=(), max_length=4)
    """Widths of fully connected layers with ReLU before the classifier; 4096, 4096 in VGG."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """After each hidden layer; without any, between the vector and the classifier."""
    class_token: Literal["sum", "only", "ignore"] = "sum"
    """With a backbone that has one: add the logits of its own classifier, use them alone, or do
    not use it. Without effect on other backbones."""
    classifier_init: Literal["default", "normal"] = "default"
    """How the Linear layers are drawn: PyTorch's default, as in the GCP ResNets, or from N(0, 0.01)
    with zero biases, as in MobileNetV2 and VGG."""


class ModelConfig(Config):
    """Backbone and head."""

    backbone: BackboneConfig = SmallResNetConfig()
    head: HeadConfig = HeadConfig()

    def num_positions(self, image_size: int) -> int | None:
        """Return how many positions the pooling sees, for square images of `image_size` pixels.

        Zero if the image is too small for the backbone; None if only building it tells.
        """
        return self.backbone.num_positions(image_size)

    @property
    def uses_class_token_only(self) -> bool:
        """Whether nothing is reduced and pooled: a class token has a classifier of its own."""
        return self.head.class_token == "only" and self.backbone.has_class_token

    @property
    def min_positions(self) -> int:
        """Positions without which the pooling has nothing to pool; 0 if the network has none."""
        if self.uses_class_token_only:
            return 0
        return self.head.pooling.min_positions

    @model_validator(mode="after")
    def _values_are_there(self) -> "ModelConfig":
        """A matrix has as many singular values as channels."""
        if self.uses_class_token_only:
            return self
        channels = self.head.reduced_channels
        if channels is None and isinstance(self.backbone, SmallResNetConfig):
            channels = self.backbone.out_channels  # all others have more than can be asked for
        wanted = getattr(self.head.pooling, "num_values", 1)
        if channels is not None and wanted > channels:
            raise ValueError(
                f"head.pooling.num_values ({wanted}) is more than the {channels} channels pooled"
            )
        return self

    def settings_without_effect(self) -> list[str]:
        """Name the settings that were changed although others make them void."""
        head, found = self.head, []
        if head.reduced_channels is None and head.activation != HeadConfig().activation:
            found.append("head.activation: there is no reduction (head.reduced_channels is null)")
        pooling = head.pooling
        if isinstance(pooling, DropCovConfig | CrossCovConfig):
            untouched = pooling.rate == type(pooling).model_fields["rate"].default
            if pooling.adaptive and not untouched:
                found.append("head.pooling.rate: the rate is adaptive")
        return [f"model.{text}" for text in found]
