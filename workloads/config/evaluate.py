"""Everything one evaluation depends on."""

from typing import Any, Literal

from pydantic import Field, model_validator

from workloads.config.base import Config
from workloads.config.data import DataConfig, DigitsConfig, fill_usual
from workloads.config.images import ImagesConfig
from workloads.config.model import ModelConfig
from workloads.config.train import Crops


class EvalConfig(Config):
    """One evaluation: weights, network, images, and what is written down."""

    weights: str = Field(min_length=1)
    """A checkpoint's folder or a file of weights, as the cluster's nodes see it."""
    origin: str = ""
    """What the person asked for, such as `train-x7:best`; for reports."""
    model: ModelConfig | None = None
    """The network; null takes what the file says or its weights show."""
    average: Literal["auto", "model", "ema"] = "auto"
    """Which of a checkpoint's weights: the trained ones, their moving average, or (`auto`) the
    average where there is one."""
    data: DataConfig = DigitsConfig()
    images: ImagesConfig = DigitsConfig.usual_images
    split: Literal["val", "train"] = "val"
    crops: Crops = "centre"
    batch_size: int = Field(default=64, ge=1, le=100_000)
    """Images at once on each worker. The number of workers changes nothing; this changes the last
    bits, for those of a convolution depend on it."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    calibration_bins: int = Field(default=15, ge=1, le=1000)
    """Bins of equal width of the expected calibration error."""
    classes: tuple[str, ...] | None = None
    """Names of the network's outputs in their order, instead of what the weights say; compared with
    the data's, and taken at their word."""

    @classmethod
    def with_usual_values(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return `document` with the usual images of its source."""
        return fill_usual(document, sections=("images",))

    @model_validator(mode="before")
    @classmethod
    def _usual_of_the_source(cls, document: Any) -> Any:
        return cls.with_usual_values(document) if isinstance(document, dict) else document

    @model_validator(mode="after")
    def _channels_agree(self) -> "EvalConfig":
        if len(self.images.mean) not in (1, self.data.in_channels):
            raise ValueError(
                f"images.mean and std have {len(self.images.mean)} numbers; images of "
                f"{self.data.name} have {self.data.in_channels}"
            )
        return self
