"""A worker's share of a global batch in parts that fit in memory, whose gradients add up.

The mean over equal parts of their mean losses is the mean over the whole; so are the gradients.
Batch norms see one part at a time, as they see one worker's images with several workers.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from workloads.training.mix import Mixed, mix_batch
from workloads.training.run import Run


@dataclass(frozen=True)
class Part:
    """Images that a worker computes at once.

    Attributes:
        images: Floating point (P, C, S, S), mixed where the batch is.
        labels: Classes (P,) int64.
        mixed: What the images were mixed with, None where they were not.
    """

    images: Tensor
    labels: Tensor
    mixed: Mixed | None


@dataclass(frozen=True)
class PartResult:
    """What a forward pass came to.

    Attributes:
        loss: Mean over the images, with the way back to the weights.
        correct: Images whose likeliest class is right; of a mixed image, the class that has the
            larger share of it.
    """

    loss: Tensor
    correct: Tensor


@dataclass(frozen=True)
class BatchResult:
    """The same over all parts: mean loss and correct images, without the way back."""

    loss: Tensor
    correct: Tensor


def parts_of_batch(run: Run, images: Tensor, labels: Tensor, *, step: int) -> Iterator[Part]:
    """Yield the equal parts of a worker's share of a batch, on its device.

    Args:
        run: Says how many parts there are and how images are scaled and mixed.
        images: Bytes (B, C, S, S).
        labels: Classes (B,).
        step: Optimizer steps done before, which decide the mixing together with the seed.
    """
    config, device = run.config, run.context.device
    images = images.to(device, non_blocking=True)
    labels = labels.to(device, non_blocking=True)
    for bytes_, own in _split(run, images, labels):
        pixels = run.data.scale(bytes_, channels_last=config.compute.channels_last)
        mixed = None
        if config.mix is not None:
            pixels, mixed = mix_batch(config.mix, pixels, own, seed=config.seed, step=step)
        yield Part(pixels, own, mixed)


def _split(run: Run, images: Tensor, labels: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    if run.num_parts == 1:
        return ((images, labels),)
    size = run.batch_size // run.num_parts
    return zip(images.split(size), labels.split(size), strict=True)


def forward(run: Run, network: nn.Module, part: Part) -> PartResult:
    """Return loss and right answers of a part."""
    with run.half_precision():
        logits = network(part.images)
    loss = run.criterion(logits, part.labels, part.mixed)
    with torch.no_grad():
        correct = (logits.argmax(dim=1) == _main_labels(part)).sum()
    return PartResult(loss, correct)


def accumulate_gradients(run: Run, images: Tensor, labels: Tensor) -> BatchResult:
    """Leave the gradient of the batch's mean loss in the weights, averaged over ranks."""
    losses, counts = [], []
    for number, part in enumerate(parts_of_batch(run, images, labels, step=run.state.global_step)):
        is_last = number == run.num_parts - 1
        with contextlib.nullcontext() if is_last else _apart(run.network):
            result = forward(run, run.network, part)
            if number == 0:
                # After the forward pass, so that it does not take and split their memory.
                run.optimizer.zero_grad(set_to_none=True)
            share = result.loss if run.num_parts == 1 else result.loss / run.num_parts
            run.loss_scale.backward(share)
        losses.append(result.loss.detach())
        counts.append(result.correct)
    if len(losses) == 1:
        return BatchResult(losses[0], counts[0])
    return BatchResult(torch.stack(losses).mean(), torch.stack(counts).sum())


def _apart(network: nn.Module) -> Any:
    """Return the context in which ranks keep their gradients to themselves."""
    if isinstance(network, DistributedDataParallel):
        return network.no_sync()
    return contextlib.nullcontext()


def _main_labels(part: Part) -> Tensor:
    """Return for each image the label that has the larger share of it."""
    if part.mixed is None or part.mixed.weight >= 0.5:
        return part.labels
    return part.mixed.partner_labels
