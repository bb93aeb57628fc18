"""What resume needs besides weights, optimizer and random numbers."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class TrainState:
    """Where a training is.

    Attributes:
        epoch: Completed epochs.
        step_in_epoch: Optimizer steps done in the epoch under way.
        global_step: Optimizer steps done since the start.
        best_top1: Best validation result so far, None before the first.
        best_epoch: Its epoch, from 1.
        val: Results of the last validation: loss, top1, top5, num_images.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    global_step: int = 0
    best_top1: float | None = None
    best_epoch: int | None = None
    val: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainState":
        """Rebuild from `to_dict`."""
        return cls(**values)


class Meters:
    """Sums over this rank's part of the epoch under way, kept on the device until asked.

    They stay apart per rank in a checkpoint too: summed early, a resumed epoch would add the same
    numbers in another order and end with other last bits.

    Attributes:
        seconds: Time spent training in this epoch, over all attempts that took part.
    """

    def __init__(self, device: torch.device) -> None:
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._count = 0
        self.seconds = 0.0

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count one batch, given its mean loss."""
        self._loss_sum.add_(loss.detach(), alpha=len(labels))
        self._correct.add_((logits.detach().argmax(dim=1) == labels).sum())
        self._count += len(labels)

    def values(self) -> list[float]:
        """Return loss sum, correct images, images and seconds of this rank."""
        return [
            self._loss_sum.item(),
            float(self._correct.item()),
            float(self._count),
            self.seconds,
        ]

    def set(self, values: list[float]) -> None:
        """Continue from `values`."""
        self._loss_sum.fill_(values[0])
        self._correct.fill_(int(values[1]))
        self._count = int(values[2])
        self.seconds = values[3]

    def reset(self) -> None:
        """Begin an epoch."""
        self.set([0.0, 0.0, 0.0, 0.0])
