"""What a network said of each image, one row of numbers per image.

Shapes: B images of a batch, N of a dataset, K classes, T = `TOP_K`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

TOP_K = 5
_FIXED = 4
"""Columns before the classes: how often counted, the true class, loss, Brier score."""
NUM_COLUMNS = _FIXED + 2 * TOP_K


@dataclass(frozen=True)
class Outcomes:
    """A dataset's rows, in its order.

    Attributes:
        labels: The true classes, (N,) int64.
        loss: Cross entropy of the true class, (N,) float64, without label smoothing.
        brier: Squared distance of the probabilities from the true class's one, (N,) float64.
        classes: The likeliest classes, likeliest first, (N, T) int64; -1 where there are fewer
            classes, and throughout where a logit is NaN or infinite.
        probabilities: Theirs, (N, T) float32; NaN where the class is -1.
    """

    labels: Tensor
    loss: Tensor
    brier: Tensor
    classes: Tensor
    probabilities: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predicted(self) -> Tensor:
        """The likeliest class of each image, (N,) int64; -1 where a logit was not finite."""
        return self.classes[:, 0]

    @property
    def confidence(self) -> Tensor:
        """Probability of the likeliest class, (N,) float32."""
        return self.probabilities[:, 0]

    def hits(self, k: int) -> Tensor:
        """Return whether the true class is among the `k` likeliest, (N,) bool."""
        return (self.classes[:, :k] == self.labels[:, None]).any(dim=1)


def judge(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Return rows (B, `NUM_COLUMNS`) of float64 on the logits' device, without waiting for it.

    Whole numbers and float32 are exact in float64, so that one tensor carries all.
    """
    logits_BK = logits_BK.double()
    loss_B = functional.cross_entropy(logits_BK, labels_B, reduction="none")
    probabilities_BK = logits_BK.softmax(dim=1)
    true_B = probabilities_BK.gather(1, labels_B[:, None])[:, 0]
    # sum_j (p_j - y_j)^2 = sum_j p_j^2 - 2 p_y + 1
    brier_B = probabilities_BK.square().sum(dim=1) - 2.0 * true_B + 1.0
    # By logits: of classes that are hopeless, all probabilities are zero.
    best_Bk = logits_BK.topk(min(TOP_K, logits_BK.shape[1]), dim=1).indices
    best_probabilities_Bk = probabilities_BK.gather(1, best_Bk).float().double()
    finite_B1 = logits_BK.isfinite().all(dim=1, keepdim=True)
    # topk takes NaN for the largest: without this a broken network would have an answer.
    classes_BT = _widen(best_Bk.double().where(finite_B1, -1.0), -1.0)
    probabilities_BT = _widen(best_probabilities_Bk.where(finite_B1, torch.nan), torch.nan)
    fixed = torch.stack([torch.ones_like(loss_B), labels_B.double(), loss_B, brier_B], dim=1)
    return torch.cat([fixed, classes_BT, probabilities_BT], dim=1)


def _widen(values_Bk: Tensor, filler: float) -> Tensor:
    """Fill up to `TOP_K` columns: ranks without an image know no number of classes."""
    return functional.pad(values_Bk, (0, TOP_K - values_Bk.shape[1]), value=filler)


def from_table(table: Tensor) -> Outcomes:
    """Read the rows of a whole dataset, summed over the ranks, of which one judged each image.

    Args:
        table: (N, `NUM_COLUMNS`) float64.

    Raises:
        RuntimeError: An image was not counted exactly once.
    """
    check_each_once(table[:, 0])
    return Outcomes(
        labels=table[:, 1].long(),
        loss=table[:, 2].clone(),
        brier=table[:, 3].clone(),
        classes=table[:, _FIXED : _FIXED + TOP_K].long(),
        probabilities=table[:, _FIXED + TOP_K :].float(),
    )


def check_each_once(counted: Tensor) -> None:
    """Raise RuntimeError unless every image was counted exactly once."""
    wrong = (counted != 1).nonzero().flatten()
    if len(wrong):
        first = int(wrong[0])
        raise RuntimeError(
            f"evaluation counted image {first} {int(counted[first])} times, and {len(wrong)} of "
            f"{len(counted)} images not exactly once: the result would be wrong"
        )
