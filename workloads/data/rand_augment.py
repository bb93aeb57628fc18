"""RandAugment (Cubuk et al., 2020) in the form that timm calls `rand-m9-mstd0.5-inc1`.

For each of `num_ops` operations: one of the fifteen, drawn with repetition; applied with
`probability`; its magnitude normal around `magnitude`, kept within [0, 10]. "inc1" means that a
larger magnitude is a stronger change in every operation. Cutout is not among them.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from workloads.config.images import ImagesConfig, RandAugmentConfig
from workloads.data.colour import from_pillow, to_pillow

LARGEST = 10.0
"""Of the magnitudes."""

Level = Callable[[float], float]


class Frame(NamedTuple):
    """What moved images are filled up with, and how pixels between pixels are found."""

    fill: tuple[int, ...] | int
    resample: Image.Resampling


class Operation(NamedTuple):
    """One of the changes.

    Attributes:
        argument: What a signed share of the largest magnitude, in [-1, 1], means here.
        apply: From an image, the argument and the frame to an image.
        signed: Whether the share's sign is drawn; otherwise it is positive.
    """

    argument: Level
    apply: Callable[[Image.Image, float, Frame], Image.Image]
    signed: bool = False


def _nothing(share: float) -> float:
    return 0.0


def _enhance_factor(share: float) -> float:
    """1 changes nothing; down to 0.1 and up to 1.9."""
    return max(0.1, 1.0 + 0.9 * share)


def _bits_kept(share: float) -> float:
    # At the largest magnitude timm keeps none: a black image, which Pillow now refuses to make.
    return max(1, 4 - int(4 * share))


def _solarize_from(share: float) -> float:
    return 256 - min(256, int(256 * share))


def _solarize_summand(share: float) -> float:
    return min(128, int(110 * share))


def _enhance(
    enhancer: type[ImageEnhance._Enhance],
) -> Callable[[Image.Image, float, Frame], Image.Image]:
    return lambda image, factor, frame: enhancer(image).enhance(factor)


def _affine(image: Image.Image, matrix: tuple[float, ...], frame: Frame) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, frame.resample, fillcolor=frame.fill
    )


def _rotate(image: Image.Image, degrees: float, frame: Frame) -> Image.Image:
    return image.rotate(degrees, frame.resample, fillcolor=frame.fill)


def _shear_x(image: Image.Image, slope: float, frame: Frame) -> Image.Image:
    return _affine(image, (1, slope, 0, 0, 1, 0), frame)


def _shear_y(image: Image.Image, slope: float, frame: Frame) -> Image.Image:
    return _affine(image, (1, 0, 0, slope, 1, 0), frame)


def _translate_x(image: Image.Image, share: float, frame: Frame) -> Image.Image:
    return _affine(image, (1, 0, share * image.width, 0, 1, 0), frame)


def _translate_y(image: Image.Image, share: float, frame: Frame) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, share * image.height), frame)


def _solarize_add(image: Image.Image, summand: float, frame: Frame) -> Image.Image:
    """Make what is darker than the middle brighter."""
    values = [min(255, v + int(summand)) if v < 128 else v for v in range(256)]
    return image.point(values * len(image.getbands()))


OPERATIONS: dict[str, Operation] = {
    "auto_contrast": Operation(_nothing, lambda image, _, __: ImageOps.autocontrast(image)),
    "equalize": Operation(_nothing, lambda image, _, __: ImageOps.equalize(image)),
    "invert": Operation(_nothing, lambda image, _, __: ImageOps.invert(image)),
    "rotate": Operation(lambda share: 30 * share, _rotate, signed=True),
    "posterize": Operation(_bits_kept, lambda image, n, _: ImageOps.posterize(image, int(n))),
    "solarize": Operation(_solarize_from, lambda image, n, _: ImageOps.solarize(image, int(n))),
    "solarize_add": Operation(_solarize_summand, _solarize_add),
    "color": Operation(_enhance_factor, _enhance(ImageEnhance.Color), signed=True),
    "contrast": Operation(_enhance_factor, _enhance(ImageEnhance.Contrast), signed=True),
    "brightness": Operation(_enhance_factor, _enhance(ImageEnhance.Brightness), signed=True),
    "sharpness": Operation(_enhance_factor, _enhance(ImageEnhance.Sharpness), signed=True),
    "shear_x": Operation(lambda share: 0.3 * share, _shear_x, signed=True),
    "shear_y": Operation(lambda share: 0.3 * share, _shear_y, signed=True),
    "translate_x": Operation(lambda share: 0.45 * share, _translate_x, signed=True),
    "translate_y": Operation(lambda share: 0.45 * share, _translate_y, signed=True),
}
_NAMES = tuple(OPERATIONS)


class RandAugment:
    """Some of the operations, drawn for each image.

    Args:
        images: Its mean is what moved images are filled up with.
        channels: Of the images; 1 or 3.
    """

    def __init__(
        self, config: RandAugmentConfig, images: ImagesConfig, *, channels: int = 3
    ) -> None:
        self._config = config
        mean = [min(255, round(255 * value)) for value in images.mean]
        self._frame = Frame(
            fill=mean[0] if channels == 1 else tuple(mean * (channels // len(mean))),
            resample=Image.Resampling[images.interpolation.upper()],
        )

    def __call__(self, image: Tensor, random: np.random.Generator) -> Tensor:
        """Return the image (H, W, C) uint8 after the operations drawn."""
        varied = None
        for name, share in self.draw(random):
            if varied is None:
                varied = to_pillow(image)
            operation = OPERATIONS[name]
            varied = operation.apply(varied, operation.argument(share), self._frame)
        return image if varied is None else from_pillow(varied)

    def draw(self, random: np.random.Generator) -> list[tuple[str, float]]:
        """Draw names of operations and their signed shares of the largest magnitude."""
        config, drawn = self._config, []
        for _ in range(config.num_ops):
            name = _NAMES[int(random.integers(len(_NAMES)))]
            applied, sign = random.random(2).tolist()
            magnitude = config.magnitude + config.magnitude_std * random.standard_normal()
            share = min(max(magnitude, 0.0), LARGEST) / LARGEST
            if applied < config.probability:
                drawn.append((name, -share if OPERATIONS[name].signed and sign < 0.5 else share))
        return drawn
