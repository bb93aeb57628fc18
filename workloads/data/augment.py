"""One training image after another form: crop, mirror, colours, erasing.

Every draw comes from the generator that is handed in, in a fixed order, so an image's form
depends on what that generator was keyed by and on nothing else.
"""

import math

import numpy as np
import torch
from torch import Tensor

from workloads.config.images import (
    AugmentConfig,
    ErasingConfig,
    ImagesConfig,
    PadCropConfig,
    RandomCropConfig,
    RandomResizedCropConfig,
)
from workloads.data.colour import jitter_colours
from workloads.data.errors import DataError
from workloads.data.rand_augment import RandAugment
from workloads.data.transforms import (
    centre_box,
    crop,
    flip,
    pad,
    random_box,
    resize,
    resize_for_crop,
)


class Augmentation:
    """How training images are varied, one at a time.

    Args:
        images: What the network sees of an image.
        augment: What is drawn.
        max_value: The byte that stands for white.
        channels: Of the source's images.

    Raises:
        DataError: Colours are to be varied, and the bytes do not go from 0 to 255.
    """

    def __init__(
        self,
        images: ImagesConfig,
        augment: AugmentConfig,
        *,
        max_value: float = 255.0,
        channels: int = 3,
    ) -> None:
        for name in ("color_jitter", "rand_augment"):
            if getattr(augment, name) is not None and max_value != 255.0:
                raise DataError(
                    f"augment.{name} takes pixels from 0 to 255, and these go to {max_value:g}",
                    f"leave augment.{name} out, or use another data source",
                )
        self._images = images
        self._augment = augment
        self._rand_augment = (
            RandAugment(augment.rand_augment, images, channels=channels)
            if augment.rand_augment is not None
            else None
        )
        self._eraser = (
            Eraser(augment.erasing, images, max_value=max_value)
            if augment.erasing is not None
            else None
        )

    def __call__(self, image: Tensor, size: int, random: np.random.Generator) -> Tensor:
        """Return (size, size, C) uint8 out of an image (H, W, C) uint8."""
        image = self._crop(image, size, random)
        if self._augment.flip and random.random() < self._augment.flip:
            image = flip(image)
        if self._rand_augment is not None:
            image = self._rand_augment(image, random)
        elif self._augment.color_jitter is not None:
            image = jitter_colours(image, self._augment.color_jitter, random)
        return image if self._eraser is None else self._eraser(image, random)

    def _crop(self, image: Tensor, size: int, random: np.random.Generator) -> Tensor:
        config, interpolation = self._augment.crop, self._images.interpolation
        height, width, _ = image.shape
        if isinstance(config, RandomResizedCropConfig):
            box = random_box(height, width, config, random)
            return resize(crop(image, box), size, size, interpolation)
        if isinstance(config, PadCropConfig):
            down, right = random.integers(0, 2 * config.padding + 1, size=2).tolist()
            shifted = crop(pad(image, config.padding), (down, right, height, width))
            return resize(shifted, size, size, interpolation)
        image = resize_for_crop(image, self._images, size)
        height, width, _ = image.shape
        if isinstance(config, RandomCropConfig):
            down = int(random.integers(0, height - size + 1))
            right = int(random.integers(0, width - size + 1))
            return crop(image, (down, right, size, size))
        return crop(image, centre_box(height, width, size))


class Eraser:
    """Random erasing (Zhong et al., 2020), with noise per pixel as in timm's mode `pixel`.

    timm draws the noise in normalised units, where it is unbounded. Here it is turned into bytes,
    so what lies outside of black and white is clipped: with ImageNet's mean and deviation, each
    side loses about 2 % of the values.
    """

    def __init__(
        self, config: ErasingConfig, images: ImagesConfig, *, max_value: float = 255.0
    ) -> None:
        self._config = config
        self._max_value = max_value
        self._mean = max_value * np.asarray(images.mean, dtype=np.float32)
        self._std = max_value * np.asarray(images.std, dtype=np.float32)

    def __call__(self, image: Tensor, random: np.random.Generator) -> Tensor:
        """Return the image (H, W, C), or a copy with a box of it erased."""
        height, width, channels = image.shape
        if random.random() >= self._config.probability:
            return image
        box = self._box(height, width, random)
        if box is None:
            return image
        top, left, h, w = box
        values = np.broadcast_to(self._mean, (h, w, channels))
        if self._config.fill == "noise":
            noise = random.standard_normal((h, w, channels), dtype=np.float32)
            values = values + self._std * noise
        erased = image.clone()
        filled = np.rint(values).clip(0, self._max_value).astype(np.uint8)
        erased[top : top + h, left : left + w] = torch.from_numpy(filled)
        return erased

    def _box(
        self, height: int, width: int, random: np.random.Generator
    ) -> tuple[int, int, int, int] | None:
        """Draw a box smaller than the image, or none where ten are too large."""
        config, log_ratio = self._config, math.log(self._config.min_ratio)
        for _ in range(10):
            area, ratio, down, right = random.random(4).tolist()
            area = height * width * (config.min_area + area * (config.max_area - config.min_area))
            ratio = math.exp(log_ratio * (1 - 2 * ratio))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if h < height and w < width:
                return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
        return None
