"""Mixup and CutMix: neighbours of a batch blended with each other.

Shape letters: B images, C channels, H by W pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workloads.config.images import MixConfig

_STREAM = 0x6D69786572
"""Tells these draws from others with the same seed."""


@dataclass(frozen=True)
class Mixed:
    """What became of the labels of a mixed batch.

    Attributes:
        partner_labels: (B,) labels of the image that each image was blended with.
        weight: Share of an image's own label; its partner's is 1 - weight.
    """

    partner_labels: Tensor
    weight: float


@dataclass(frozen=True)
class Draw:
    """What is drawn for a whole global batch.

    Attributes:
        weight: Share of the image itself, before a box is cut to whole pixels.
        centre: Of CutMix's box, as shares of height and width; None is mixup.
    """

    weight: float
    centre: tuple[float, float] | None


def mix_batch(
    config: MixConfig, images: Tensor, labels: Tensor, *, seed: int, step: int
) -> tuple[Tensor, Mixed | None]:
    """Blend images 2k and 2k + 1 with each other, by one draw for the global batch of a step.

    The result depends on seed, step and the pair alone. So workers that hold consecutive, even
    parts of a global batch, and parts of an accumulated one, give what one whole would.

    Args:
        config: What to draw.
        images: (B, C, H, W), floating, B even; they stay as they are.
        labels: (B,).
        seed: The training's seed.
        step: Optimizer steps done.

    Returns:
        The images, and the partners' labels; None where this batch is not mixed.

    Raises:
        ValueError: B is odd.

    References:
        Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.
        Yun et al., CutMix, ICCV 2019: the box, and the weight after the image's border cut it.
    """
    if len(images) % 2:
        raise ValueError(f"pairs of images are mixed, and a batch of {len(images)} is odd")
    draw = draw_mix(config, seed=seed, step=step)
    if draw is None:
        return images, None
    weight = draw.weight
    if draw.centre is None:
        mixed = torch.empty_like(images)
        for mine, partner in ((0, 1), (1, 0)):
            mixed[mine::2] = images[mine::2].lerp(images[partner::2], 1.0 - weight)
    else:
        height, width = images.shape[-2:]
        top, bottom, left, right = cut_box(draw, height, width)
        mixed = images.clone()
        for mine, partner in ((0, 1), (1, 0)):
            box = images[partner::2, :, top:bottom, left:right]
            mixed[mine::2, :, top:bottom, left:right] = box
        weight = 1.0 - (bottom - top) * (right - left) / (height * width)
    partners = labels.unflatten(0, (-1, 2)).flip(1).flatten()
    return mixed, Mixed(partner_labels=partners, weight=weight)


def draw_mix(config: MixConfig, *, seed: int, step: int) -> Draw | None:
    """Return what a step's batch is mixed by, None where it is not."""
    # The step is a high word of the counter: the streams of two steps never meet.
    bits = np.random.Philox(key=[seed, _STREAM], counter=[0, step, 0, 0])
    numbers = np.random.Generator(bits)
    applied, switch, vertical, horizontal = numbers.random(4).tolist()
    if applied >= config.probability:
        return None
    both = config.mixup > 0.0 and config.cutmix > 0.0
    cuts = switch < config.switch if both else config.cutmix > 0.0
    alpha = config.cutmix if cuts else config.mixup
    return Draw(float(numbers.beta(alpha, alpha)), (vertical, horizontal) if cuts else None)


def cut_box(draw: Draw, height: int, width: int) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of CutMix's box, ends excluded.

    Its sides are sqrt(1 - weight) of the image's; its centre is uniform over the pixels, and what
    lies outside is cut off.
    """
    assert draw.centre is not None
    share = (1.0 - draw.weight) ** 0.5
    top, bottom = _interval(height, share, draw.centre[0])
    left, right = _interval(width, share, draw.centre[1])
    return top, bottom, left, right


def _interval(size: int, share: float, centre: float) -> tuple[int, int]:
    half = int(size * share) // 2
    middle = int(size * centre)
    return max(0, middle - half), min(size, middle + half)
