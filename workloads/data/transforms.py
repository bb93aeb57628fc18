"""Geometry of images as bytes: resize, crop, flip. Every image is uint8 (H, W, C).

Rounding is torchvision's: a resized longer side is cut to a whole number, a centred box begins at
round((side - box) / 2), with halves to the even number. A crop is a view; resizing copies no more
than the box. torch's antialiased resize of bytes works four times as fast where the channels lie
together, and needs to see that in the strides.
"""

import math
from typing import Literal

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from workloads.config.images import ImagesConfig, Interpolation, RandomResizedCropConfig

Box = tuple[int, int, int, int]
"""Top, left, height, width."""

LONGEST_RATIO = 16
"""Of the sides. Of longer images the middle is taken first: one row of a million pixels, resized
to a shorter side of 256, would take 200 GB."""


def crop(image: Tensor, box: Box) -> Tensor:
    """Return a view of the box."""
    top, left, height, width = box
    return image[top : top + height, left : left + width]


def resize(image: Tensor, height: int, width: int, interpolation: Interpolation) -> Tensor:
    """Return the image in another size, antialiased; itself where it has that size."""
    if image.shape[:2] == (height, width):
        return image
    batch = image[None].permute(0, 3, 1, 2)
    return F.interpolate(batch, (height, width), mode=interpolation, antialias=True)[0].permute(
        1, 2, 0
    )


def resized_shape(
    height: int, width: int, side: int, mode: Literal["shorter_side", "squash"]
) -> tuple[int, int]:
    """Return height and width after a resize of the shorter side, or of both, to `side`."""
    if mode == "squash":
        return side, side
    if height <= width:
        return side, int(side * width / height)
    return int(side * height / width), side


def centre_box(height: int, width: int, size: int) -> Box:
    """Return the square of `size` in the middle of an image that is large enough."""
    return round((height - size) / 2), round((width - size) / 2), size, size


def five_boxes(height: int, width: int, size: int) -> list[Box]:
    """Return the squares of a ten-crop without mirror images (Krizhevsky et al., 2012).

    The centre, then the corners: top left, top right, bottom left, bottom right.
    """
    bottom, right = height - size, width - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    return [
        centre_box(height, width, size),
        *((top, left, size, size) for top, left in corners),
    ]


def middle(image: Tensor) -> Tensor:
    """Return the middle of an image that is far longer than wide, any other as it is."""
    height, width, _ = image.shape
    most = LONGEST_RATIO * min(height, width)
    if max(height, width) <= most:
        return image
    box_height, box_width = min(height, most), min(width, most)
    return crop(
        image, ((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)
    )


def resize_for_crop(image: Tensor, images: ImagesConfig, size: int | None = None) -> Tensor:
    """Return the image resized so that a square of `size` can be cut out.

    Args:
        size: Side of the square; None for `images.size`. Another one scales `images.resize` along.
    """
    size = size or images.size
    image = middle(image)
    height, width, _ = image.shape
    if images.resize is None:
        if (height, width) == (size, size):
            return image
        side = size
    else:
        side = max(round(images.resize * size / images.size), size)
    shape = resized_shape(height, width, side, images.resize_mode)
    return resize(image, *shape, images.interpolation)


def random_box(
    height: int, width: int, config: RandomResizedCropConfig, random: np.random.Generator
) -> Box:
    """Draw a box of a random share of the area and a random ratio, at a random place.

    Ten boxes that do not fit are followed by the largest centred one with an allowed ratio, as in
    torchvision.
    """
    low, high = math.log(config.min_ratio), math.log(config.max_ratio)
    for _ in range(10):
        area, ratio, down, right = random.random(4).tolist()
        area = height * width * (config.min_area + area * (config.max_area - config.min_area))
        ratio = math.exp(low + ratio * (high - low))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
    ratio = min(max(width / height, config.min_ratio), config.max_ratio)
    w = min(width, max(round(height * ratio), 1))
    h = min(height, max(round(width / ratio), 1))
    return (height - h) // 2, (width - w) // 2, h, w


def pad(image: Tensor, padding: int) -> Tensor:
    """Return the image with a border of zeros."""
    height, width, channels = image.shape
    padded = image.new_zeros(height + 2 * padding, width + 2 * padding, channels)
    padded[padding : padding + height, padding : padding + width] = image
    return padded


def flip(image: Tensor) -> Tensor:
    """Return the mirror image."""
    return image.flip(1)
