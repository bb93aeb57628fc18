"""What a network sees of an image: its size and scale, and how training images are varied."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workloads.config.base import Config

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of ImageNet's pixels, scaled to [0, 1], per channel."""

Interpolation = Literal["bilinear", "bicubic"]
Channels = Annotated[
    tuple[Annotated[float, Field(ge=-10.0, le=10.0)], ...], Field(min_length=1, max_length=4)
]


class ImagesConfig(Config):
    """How an image becomes what the network takes, in training and in evaluation alike."""

    size: int = Field(default=224, ge=4, le=2048)
    """Side of the square images the network sees, in pixels."""
    resize: int | None = Field(default=256, ge=4, le=4096)
    """Side before the centre crop; null takes the image as it is where it has `size` already."""
    resize_mode: Literal["shorter_side", "squash"] = "shorter_side"
    """`resize` is the shorter side, or both sides whatever the ratio (`squash`)."""
    interpolation: Interpolation = "bilinear"
    """Antialiased in both forms, in training and evaluation."""
    mean: Channels = IMAGENET_MEAN
    """Subtracted from pixels scaled to [0, 1]; one number, or one per channel."""
    std: Annotated[
        tuple[Annotated[float, Field(ge=1e-4, le=10.0)], ...], Field(min_length=1, max_length=4)
    ] = IMAGENET_STD
    """What the difference is divided by; a fraction of a grey level would leave no finite loss."""

    @model_validator(mode="after")
    def _crop_fits(self) -> "ImagesConfig":
        if self.resize is not None and self.resize < self.size:
            raise ValueError(f"resize ({self.resize}) must be at least size ({self.size})")
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} numbers and std {len(self.std)}")
        return self


class RandomResizedCropConfig(Config):
    """A random box of the image, resized to `images.size` (Szegedy et al., 2015)."""

    name: Literal["random_resized_crop"]
    min_area: float = Field(default=0.08, gt=0.0, le=1.0)
    max_area: float = Field(default=1.0, gt=0.0, le=1.0)
    """Shares of the image's area."""
    min_ratio: float = Field(default=0.75, gt=0.0, le=10.0)
    max_ratio: float = Field(default=4 / 3, gt=0.0, le=10.0)
    """Width over height, drawn uniformly in its logarithm."""

    @model_validator(mode="after")
    def _in_order(self) -> "RandomResizedCropConfig":
        for low, high in (("min_area", "max_area"), ("min_ratio", "max_ratio")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} must not be above {high}")
        return self


class PadCropConfig(Config):
    """A box of the image's own size out of the image with a border of zeros around it.

    Resized to `images.size` afterwards where the image has another size.
    """

    name: Literal["pad_crop"]
    padding: int = Field(default=4, ge=1, le=128)
    """Pixels on each side."""


class RandomCropConfig(Config):
    """Resized as for evaluation, then a box of `images.size` at a random place."""

    name: Literal["random_crop"]


class CentreCropConfig(Config):
    """Exactly what evaluation sees."""

    name: Literal["centre_crop"] = "centre_crop"


CropConfig = Annotated[
    RandomResizedCropConfig | PadCropConfig | RandomCropConfig | CentreCropConfig,
    Field(discriminator="name"),
]


class ColorJitterConfig(Config):
    """Random brightness, contrast, saturation and hue, in an order drawn for each image.

    A factor is drawn from [max(0, 1 - x), 1 + x], the hue's shift from [-hue, hue] turns.
    """

    brightness: float = Field(default=0.4, ge=0.0, le=10.0)
    contrast: float = Field(default=0.4, ge=0.0, le=10.0)
    saturation: float = Field(default=0.4, ge=0.0, le=10.0)
    hue: float = Field(default=0.0, ge=0.0, le=0.5)


class RandAugmentConfig(Config):
    """RandAugment in the form of timm's `rand-m9-mstd0.5-inc1` (Cubuk et al., 2020)."""

    num_ops: int = Field(default=2, ge=1, le=10)
    """Operations on each image."""
    magnitude: float = Field(default=9.0, ge=0.0, le=10.0)
    magnitude_std: float = Field(default=0.5, ge=0.0, le=10.0)
    """Deviation of the normal distribution that each operation's magnitude is drawn from."""
    probability: float = Field(default=0.5, ge=0.0, le=1.0)
    """With which each chosen operation is applied."""


class ErasingConfig(Config):
    """A random box filled with noise, after all else (Zhong et al., 2020)."""

    probability: float = Field(default=0.25, gt=0.0, le=1.0)
    min_area: float = Field(default=0.02, gt=0.0, le=1.0)
    max_area: float = Field(default=1 / 3, gt=0.0, le=1.0)
    min_ratio: float = Field(default=0.3, gt=0.0, le=1.0)
    """Height over width is drawn from [min_ratio, 1 / min_ratio], uniformly in its logarithm."""
    fill: Literal["noise", "mean"] = "noise"
    """Each pixel normal with the images' mean and deviation, or the mean itself."""

    @model_validator(mode="after")
    def _in_order(self) -> "ErasingConfig":
        if self.min_area > self.max_area:
            raise ValueError(f"min_area ({self.min_area:g}) is above max_area ({self.max_area:g})")
        return self


class AugmentConfig(Config):
    """How training images are varied. Every draw is keyed by (seed, epoch, image) alone."""

    crop: CropConfig = CentreCropConfig()
    flip: float = Field(default=0.0, ge=0.0, le=1.0)
    """Probability of a mirrored image."""
    color_jitter: ColorJitterConfig | None = None
    rand_augment: RandAugmentConfig | None = None
    """Leaves `color_jitter` out where both are given, as timm does."""
    erasing: ErasingConfig | None = None


class MixConfig(Config):
    """Mixup and CutMix: pairs of images and their labels blended (Zhang 2018, Yun 2019).

    Images 2k and 2k + 1 of a global batch are a pair, and one weight is drawn for each global
    batch: so the number of workers changes nothing.
    """

    mixup: float = Field(default=0.8, ge=0.0, le=100.0)
    """Alpha of the Beta distribution of mixup's weight; 0 for none."""
    cutmix: float = Field(default=1.0, ge=0.0, le=100.0)
    """Alpha of the Beta distribution of CutMix's weight; 0 for none."""
    switch: float = Field(default=0.5, ge=0.0, le=1.0)
    """Probability of CutMix where both are on."""
    probability: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of the batches that are mixed."""

    @model_validator(mode="after")
    def _something_to_mix(self) -> "MixConfig":
        if self.mixup == 0.0 and self.cutmix == 0.0:
            raise ValueError("mixup and cutmix are both 0; write mix: null for neither")
        return self
