"""What resume needs besides weights, optimizer and random numbers."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

_MOST_WAITING = 512
"""Steps whose results wait on a GPU."""


@dataclass
class TrainState:
    """Where a training is.

    Attributes:
        epoch: Completed epochs.
        step_in_epoch: Optimizer steps done in the epoch under way.
        global_step: Optimizer steps done since the start, those included whose update was left
            out: the learning rate and the batches go on with them.
        skipped_steps: Steps so far whose update was left out.
        skipped_in_row: How many of them the newest steps are.
        best_top1: Best validation result so far, None before the first.
        best_epoch: Its epoch, from 1.
        improved_to: What early stopping compares with: the best of its metric.
        improved_epoch: Its epoch, from 1.
        stopped_early: Early stopping has ended the training.
        train_seconds: Time spent training and judging in the completed epochs, over all attempts.
        val: Results of the last validation: loss, top1, top5, num_images; with a moving average
            of the weights they are its results, and raw_loss and raw_top1 the trained weights'.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    global_step: int = 0
    skipped_steps: int = 0
    skipped_in_row: int = 0
    best_top1: float | None = None
    best_epoch: int | None = None
    improved_to: float | None = None
    improved_epoch: int = 0
    stopped_early: bool = False
    train_seconds: float = 0.0
    val: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainState":
        """Rebuild from `to_dict`; what an older version did not know has its first value.

        What only a newer one knows is refused before (`snapshot.refuse_another_job`).
        """
        return cls(**values)

    def count_step(self, *, taken: bool) -> None:
        """Count an optimizer step."""
        self.global_step += 1
        self.step_in_epoch += 1
        self.skipped_steps += not taken
        self.skipped_in_row = 0 if taken else self.skipped_in_row + 1


class Meters:
    """Sums over this rank's part of the epoch under way; on a GPU they are added up when asked for.

    They stay apart per rank in a checkpoint too: summed early, a resumed epoch would add the same
    numbers in another order and end with other last bits.

    Attributes:
        seconds: Time spent training in this epoch, over all attempts that took part.
    """

    def __init__(self) -> None:
        self._loss_sum = 0.0
        self._correct = 0.0
        self._count = 0
        self._waiting: list[tuple[Tensor, Tensor, int]] = []
        self.seconds = 0.0

    def update(self, loss: Tensor, correct: Tensor, count: int) -> None:
        """Count one batch, given its mean loss and how many of its images were right."""
        self._waiting.append((loss, correct, count))
        if loss.device.type == "cpu" or len(self._waiting) == _MOST_WAITING:
            self._add_up()

    def values(self) -> list[float]:
        """Return loss sum, correct images, images and seconds of this rank."""
        self._add_up()
        return [self._loss_sum, self._correct, float(self._count), self.seconds]

    def set(self, values: list[float]) -> None:
        """Continue from `values`."""
        self._waiting.clear()
        self._loss_sum, self._correct = values[0], values[1]
        self._count = int(values[2])
        self.seconds = values[3]

    def reset(self) -> None:
        """Begin an epoch."""
        self.set([0.0, 0.0, 0.0, 0.0])

    def _add_up(self) -> None:
        """One after the other, so that it does not matter when."""
        losses = read_scalars([loss for loss, _, _ in self._waiting])
        corrects = read_scalars([correct for _, correct, _ in self._waiting])
        for loss, correct, (_, _, count) in zip(losses, corrects, self._waiting, strict=True):
            self._loss_sum += loss * count
            self._correct += correct
            self._count += count
        self._waiting.clear()


def read_scalars(values: list[Tensor]) -> list[float]:
    """Return scalars as numbers, waiting for their device once."""
    if not values or values[0].device.type == "cpu":
        return [float(value.item()) for value in values]  # quicker than any tensor of them
    numbers: list[float] = torch.stack([value.double() for value in values]).tolist()
    return numbers
