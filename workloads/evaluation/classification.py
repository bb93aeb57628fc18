"""Top-1, top-5 and loss over a dataset, each image counted once at any number of workers."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workloads.data.loaders import val_batches
from workloads.evaluation.metrics import ClassificationSums, count_correct, sum_cross_entropy
from workloads.worker import distributed


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


def evaluate(
    model: nn.Module,
    dataset: Any,
    *,
    device: torch.device,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    loader_workers: int = 0,
) -> ClassificationResult:
    """Judge a model; every rank calls it with its own rank and gets the same result.

    Ranks take unequal shares without padding, so there is no collective before the end. The model
    is put in evaluation mode and left in the mode it came in.

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
    seen = torch.zeros(len(dataset), dtype=torch.int32)
    share = sum_batches(model, batches, device, seen)
    check_each_once(distributed.all_reduce_counts(seen))
    return summarize(_from_values(distributed.all_reduce_sum(astuple(share))))


@torch.no_grad()
def sum_batches(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    device: torch.device,
    seen: Tensor,
) -> ClassificationSums:
    """Sum over batches of (indices, images, labels) without waiting for the device in between.

    Args:
        seen: On the CPU, one whole number per image of the dataset; each image counts there.
    """
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=device)
    top1 = torch.zeros((), dtype=torch.int64, device=device)
    top5 = torch.zeros((), dtype=torch.int64, device=device)
    count = 0
    for indices, images, labels in batches:
        labels = labels.to(device, non_blocking=True)
        logits = model(images.to(device, non_blocking=True))
        hits1, hits5 = count_correct(logits, labels)
        loss += sum_cross_entropy(logits, labels)
        top1 += hits1
        top5 += hits5
        count += len(labels)
        seen.index_add_(0, indices, torch.ones_like(indices, dtype=seen.dtype))
    model.train(was_training)
    return ClassificationSums(loss.item(), int(top1), int(top5), count)


def check_each_once(seen: Tensor) -> None:
    """Raise unless every image was counted exactly once; `seen` is summed over all ranks."""
    wrong = (seen != 1).nonzero().flatten()
    if len(wrong):
        first = int(wrong[0])
        raise RuntimeError(
            f"evaluation counted image {first} {int(seen[first])} times, and {len(wrong)} of "
            f"{len(seen)} images not exactly once: the result would be wrong"
        )


def summarize(total: ClassificationSums) -> ClassificationResult:
    """Turn sums over a whole dataset into means."""
    return ClassificationResult(
        loss=total.loss / total.count,
        top1=100.0 * total.top1 / total.count,
        top5=100.0 * total.top5 / total.count,
        num_images=total.count,
    )


def _from_values(values: list[float]) -> ClassificationSums:
    loss, *counts = values
    return ClassificationSums(loss, *(round(value) for value in counts))
