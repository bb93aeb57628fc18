"""Top-1, top-5 and loss over a dataset, each image counted once, the same for any number of ranks.

To the last bit: the images are cut into the same batches whatever the number of ranks, for the
last bits of a convolution depend on how many images it sees at once; an image's row of numbers is
made by one rank, and adding the others' zeros changes nothing; sums over images are exact.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workloads.config.train import Crops
from workloads.data.bundle import PixelScale
from workloads.data.loaders import val_batches
from workloads.evaluation.outcomes import NUM_COLUMNS, TOP_K, Outcomes, from_table, judge
from workloads.evaluation.views import average_logits
from workloads.worker import distributed

_MOST_IMAGES_AT_ONCE = 256


@dataclass(frozen=True)
class ClassificationResult:
    """Results over a whole dataset.

    Attributes:
        loss: Mean cross entropy.
        top1: Percent.
        top5: Percent; the k is smaller where there are fewer classes.
    """

    loss: float
    top1: float
    top5: float
    num_images: int


def evaluation_batch_size(global_batch_size: int) -> int:
    """Return how many images a worker judges at once, whatever the number of workers."""
    return min(global_batch_size, _MOST_IMAGES_AT_ONCE)


def evaluate(
    model: nn.Module,
    dataset: Any,
    *,
    scale: PixelScale,
    device: torch.device,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    loader_workers: int = 0,
    crops: Crops = "centre",
    precision: str = "fp32",
) -> ClassificationResult:
    """Judge a model; every rank calls it with its own rank and gets the same result.

    Ranks take unequal shares without padding, and meet once, at the end. The model is put in
    evaluation mode and left in the mode it came in.

    Args:
        model: From images (B, C, S, S) to logits (B, K).
        dataset: Its `get_batch` gives bytes, see `workloads.data.bundle.ImageDataset`; or a
            `workloads.data.loaders.Loader` of one, which has its own processes.
        scale: From bytes to what the model takes.
        device: Where the model is.
        batch_size: Images at once; another changes the last bits, so it should be the same for
            any number of ranks (`evaluation_batch_size`).
        crops: Views whose logits are averaged, see `workloads.evaluation.views`.
        precision: ``fp32``, or ``bf16`` and ``fp16`` by autocast.

    Raises:
        RuntimeError: The ranks together did not see each image exactly once.
    """
    outcomes = judge_dataset(
        model,
        dataset,
        scale=scale,
        device=device,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        loader_workers=loader_workers,
        crops=crops,
        precision=precision,
    )
    return summarize(outcomes)


@torch.no_grad()
def judge_dataset(
    model: nn.Module,
    dataset: Any,
    *,
    scale: PixelScale,
    device: torch.device,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    loader_workers: int = 0,
    crops: Crops = "centre",
    precision: str = "fp32",
    before_batch: Callable[[int], None] | None = None,
) -> Outcomes:
    """Return what a model says of each image, in the dataset's order, on every rank.

    Args:
        model: See `evaluate`, as for all but the last.
        before_batch: Called with the number of batches that this rank has behind it; it may end
            the evaluation by an exception, if it does so on every rank.

    Raises:
        RuntimeError: The ranks together did not see each image exactly once.
    """
    batches = val_batches(
        dataset,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        loader_workers=loader_workers,
        pin_memory=device.type == "cuda",
    )
    was_training = model.training
    model.eval()
    places: list[Tensor] = []
    rows: list[Tensor] = []
    try:
        for number, (indices, images, labels) in enumerate(batches):
            if before_batch is not None:
                before_batch(number)
            labels = labels.to(device, non_blocking=True)
            images = images.to(device, non_blocking=True)
            logits = average_logits(model, images, scale=scale, crops=crops, precision=precision)
            places.append(indices)
            rows.append(judge(logits, labels))
    finally:
        model.train(was_training)
    table = torch.zeros(len(dataset), NUM_COLUMNS, dtype=torch.float64)
    if rows:
        # Added, not set: an image that is counted twice must show.
        table.index_add_(0, torch.cat(places), torch.cat(rows).cpu())
    return from_table(distributed.all_reduce_tensor(table))


def summarize(outcomes: Outcomes) -> ClassificationResult:
    """Turn rows into means over the images."""
    count = len(outcomes)
    return ClassificationResult(
        loss=exact_mean(outcomes.loss),
        top1=100.0 * int(outcomes.hits(1).sum()) / count,
        top5=100.0 * int(outcomes.hits(TOP_K).sum()) / count,
        num_images=count,
    )


def exact_mean(values: Tensor) -> float:
    """Return the mean of numbers (N,) by an exact sum: no order of summands, no number of threads.

    NaN and infinity stay what they are.
    """
    return math.fsum(values.tolist()) / len(values)
