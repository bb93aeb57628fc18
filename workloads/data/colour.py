"""Brightness, contrast, saturation and hue, by Pillow.

Pillow, because the recipes that vary colours were written on it: the same factors give the same
bytes as torchvision's and timm's transforms of Pillow images, without four seconds of imports.
"""

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from workloads.config.images import ColorJitterConfig

_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def to_pillow(image: Tensor) -> Image.Image:
    """Return an image (H, W, 3) or (H, W, 1) uint8 as Pillow's."""
    pixels = image.numpy()
    return Image.fromarray(np.ascontiguousarray(pixels if pixels.shape[2] > 1 else pixels[..., 0]))


def from_pillow(image: Image.Image) -> Tensor:
    """Return Pillow's image as uint8 (H, W, C)."""
    pixels = torch.from_numpy(np.array(image))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def jitter_colours(image: Tensor, config: ColorJitterConfig, random: np.random.Generator) -> Tensor:
    """Return the image with factors and their order drawn (Krizhevsky 2012, Howard 2013)."""
    order = random.permutation(4).tolist()
    draws = random.random(4).tolist()
    spread = (config.brightness, config.contrast, config.saturation)
    varied = to_pillow(image)
    for kind in order:
        if kind == 3:
            if config.hue and varied.mode == "RGB":
                varied = shift_hue(varied, config.hue * (2 * draws[3] - 1))
        elif spread[kind]:
            low, high = max(0.0, 1 - spread[kind]), 1 + spread[kind]
            varied = _ENHANCERS[kind](varied).enhance(low + draws[kind] * (high - low))
    return from_pillow(varied)


def shift_hue(image: Image.Image, turns: float) -> Image.Image:
    """Turn the colour circle by a share of it, in steps of 1/255."""
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int16) + int(turns * 255)) % 256
    hue = Image.fromarray(turned.astype(np.uint8))
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")
