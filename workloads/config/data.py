"""Which images a network is trained and judged on. One class per source, told apart by `name`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from workloads.config.base import Config


class DigitsConfig(Config):
    """scikit-learn's 1,797 real 8x8 images of hand-written digits; a fixed, stratified split."""

    name: Literal["digits"] = "digits"
    val_fraction: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of each class held out for validation; the split does not depend on the seed."""
    augment: bool = True
    """Shift training images by up to one pixel, seeded by (seed, epoch, image)."""

    @property
    def image_size(self) -> int:
        """Side of the images, in pixels."""
        return 8


class ImageFolderConfig(Config):
    """A folder of images: `train/<class>/*` and `val/<class>/*`."""

    name: Literal["image_folder"]
    path: str = Field(min_length=1)
    """The folder that holds `train` and `val`, as the cluster's nodes see it."""
    image_size: int = Field(default=224, ge=8, le=1024)
    """Side of the square images the network sees, in pixels."""
    resize_size: int | None = Field(default=None, ge=8, le=2048)
    """Shorter side before the centre crop in validation; None is image_size * 256 / 224."""
    augment: bool = True
    """Random resized crop and horizontal flip, seeded by (seed, epoch, image)."""
    on_bad_image: Literal["fail", "skip"] = "fail"
    """A file that is no image or is cut short: name it and stop, or leave it out and count it."""
    check_images: bool = True
    """Decode every image once before training starts, so that a bad one is met then."""
    loader_workers: int = Field(default=0, ge=0, le=64)
    """Processes per rank that decode images; 0 decodes in the training process."""
    max_pixels: int = Field(default=50_000_000, ge=1)
    """Larger images are refused as bad: a small file can unpack to gigabytes."""

    @field_validator("path")
    @classmethod
    def _path_is_said(cls, path: str) -> str:
        if not path.strip():
            raise ValueError("must not be empty")
        return path

    @model_validator(mode="after")
    def _skip_needs_check(self) -> "ImageFolderConfig":
        if self.on_bad_image == "skip" and not self.check_images:
            raise ValueError("on_bad_image: skip needs check_images: true, or counts would drift")
        return self

    @model_validator(mode="after")
    def _crop_fits(self) -> "ImageFolderConfig":
        if self.resize_size is not None and self.resize_size < self.image_size:
            raise ValueError(
                f"resize_size ({self.resize_size}) must be at least image_size ({self.image_size})"
            )
        return self


DataConfig = Annotated[DigitsConfig | ImageFolderConfig, Field(discriminator="name")]
