"""Counting right answers, exactly.

Shapes: B images, K classes.
"""

from dataclasses import astuple, dataclass

import torch
from torch import Tensor
from torch.nn import functional

TOP_K = 5


@dataclass(frozen=True)
class ClassificationSums:
    """Sums over images; sums of parts of a dataset add up to the sums of the whole.

    Attributes:
        loss: Cross entropy, summed in float64.
        top1: Images whose likeliest class is right.
        top5: Images whose class is among the `TOP_K` likeliest, or all if there are fewer.
        count: Images.
    """

    loss: float = 0.0
    top1: int = 0
    top5: int = 0
    count: int = 0

    def __add__(self, other: "ClassificationSums") -> "ClassificationSums":
        return ClassificationSums(
            *(a + b for a, b in zip(astuple(self), astuple(other), strict=True))
        )


def count_correct(logits_BK: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many images are right at once and among the `TOP_K`, as int64 scalars.

    A row with a NaN or an infinity counts as wrong: torch would sort NaN as the largest.
    """
    k = min(TOP_K, logits_BK.shape[1])
    best_Bk = logits_BK.topk(k, dim=1).indices
    hits_Bk = (best_Bk == labels_B[:, None]) & logits_BK.isfinite().all(dim=1, keepdim=True)
    return hits_Bk[:, 0].sum(), hits_Bk.sum()


def sum_cross_entropy(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Return the summed cross entropy in float64, without label smoothing."""
    return functional.cross_entropy(logits_BK.to(torch.float64), labels_B, reduction="sum")
