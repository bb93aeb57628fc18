"""Several views of an image, one answer.

The logits of the views are averaged, not the probabilities, as the published scripts of
fast-MPN-COV do (there: "outputs" of the ten crops, and of a crop and its mirror image). Classes,
probabilities and loss all come from the averaged logits. A mirror image is that of the crop;
torchvision's ten crops mirror the whole image first, which moves the centre by a pixel where the
border to cut off is odd.

Shapes: B images, V views of each, C channels, S pixels per side, K classes.
"""

import contextlib

import torch
from torch import Tensor, nn

from workloads.config.train import Crops
from workloads.data.bundle import PixelScale

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def average_logits(
    model: nn.Module, images: Tensor, *, scale: PixelScale, crops: Crops, precision: str = "fp32"
) -> Tensor:
    """Return logits (B, K) in float32 or wider.

    One view is computed at a time, so that more views take no more memory.

    Args:
        model: In evaluation mode.
        images: Bytes on the model's device, (B, C, S, S); with ``ten`` the five crops of each,
            (B, 5, C, S, S). Mirror images are made here.
        scale: From bytes to what the network takes.
        crops: ``centre``, ``flip`` (with the mirror image) or ``ten`` (five crops, each with its
            mirror image).
        precision: ``fp32``, or ``bf16`` and ``fp16`` by autocast.
    """
    views = images.unbind(1) if images.ndim == 5 else (images,)
    dtype = _HALF.get(precision)
    device = images.device.type
    total: Tensor | None = None
    count = 0
    with contextlib.nullcontext() if dtype is None else torch.autocast(device, dtype):
        for view in views:
            pixels = scale(view)
            for seen in (pixels,) if crops == "centre" else (pixels, pixels.flip(-1)):
                logits = model(seen)
                logits = logits.float() if logits.dtype in _HALF.values() else logits
                total = logits if total is None else total + logits
                count += 1
    assert total is not None
    return total if count == 1 else total / count
