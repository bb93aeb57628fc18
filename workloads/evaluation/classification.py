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
    )
    share = sum_batches(model, batches, device)
    total = _from_values(distributed.all_reduce_sum(astuple(share)))
    return summarize(total, len(dataset))


@torch.no_grad()
def sum_batches(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor, Tensor]], device: torch.device
) -> ClassificationSums:
    """Sum over batches of (indices, images, labels) without waiting for the device in between."""
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=device)
    top1 = torch.zeros((), dtype=torch.int64, device=device)
    top5 = torch.zeros((), dtype=torch.int64, device=device)
    count = index_sum = 0
    for indices, images, labels in batches:
        labels = labels.to(device, non_blocking=True)
        logits = model(images.to(device, non_blocking=True))
        hits1, hits5 = count_correct(logits, labels)
        loss += sum_cross_entropy(logits, labels)
        top1 += hits1
        top5 += hits5
        count += len(labels)
        index_sum += int(torch.as_tensor(indices).sum())
    model.train(was_training)
    return ClassificationSums(loss.item(), int(top1), int(top5), count, index_sum)


def summarize(total: ClassificationSums, num_images: int) -> ClassificationResult:
    """Turn sums over a dataset of `num_images` into means, after a check of the counts."""
    expected_index_sum = num_images * (num_images - 1) // 2
    if total.count != num_images or total.index_sum != expected_index_sum:
        raise RuntimeError(
            f"evaluation saw {total.count} images of {num_images} (sum of their numbers "
            f"{total.index_sum}, expected {expected_index_sum}): each must count exactly once"
        )
    return ClassificationResult(
        loss=total.loss / num_images,
        top1=100.0 * total.top1 / num_images,
        top5=100.0 * total.top5 / num_images,
        num_images=num_images,
    )


def _from_values(values: list[float]) -> ClassificationSums:
    loss, *counts = values
    return ClassificationSums(loss, *(round(value) for value in counts))
