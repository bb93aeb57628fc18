"""Cross entropy with smoothed and mixed labels.

Shape letters: B images, K classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from workloads.config.errors import ConfigError, Problem
from workloads.config.train import TrainConfig, check_smoothing_over_others
from workloads.training.mix import Mixed

_HALF = (torch.float16, torch.bfloat16)


class Criterion:
    """Mean cross entropy of logits (B, K) with labels (B,).

    Smoothing by eps gives the label's class 1 - eps + eps / K and each other eps / K; where it is
    spread over the others alone, 1 - eps and eps / (K - 1), which is the same as smoothing by
    eps K / (K - 1) over all. With mixed labels it is the loss of the own labels and that of the
    partners', weighted, which equals the loss of the blended targets. Half-precision logits are
    widened first.

    Args:
        smoothing: eps.
        over_others: Whether the label's own class gets no part of eps.
    """

    def __init__(self, smoothing: float = 0.0, *, over_others: bool = False) -> None:
        self.smoothing = smoothing
        self.over_others = over_others

    def __call__(self, logits_BK: Tensor, labels_B: Tensor, mixed: Mixed | None = None) -> Tensor:
        """Return the mean loss of a batch, a scalar.

        Raises:
            ConfigError: The smoothing cannot be spread over so few classes.
        """
        smoothing = self._over_all(logits_BK.shape[1])
        logits_BK = logits_BK.float() if logits_BK.dtype in _HALF else logits_BK
        own = F.cross_entropy(logits_BK, labels_B, label_smoothing=smoothing)
        if mixed is None:
            return own
        partner = F.cross_entropy(logits_BK, mixed.partner_labels, label_smoothing=smoothing)
        return mixed.weight * own + (1.0 - mixed.weight) * partner

    def _over_all(self, num_classes: int) -> float:
        """Return the share that, spread over all classes, gives these targets."""
        if not self.over_others or self.smoothing == 0.0:
            return self.smoothing
        try:
            check_smoothing_over_others(self.smoothing, num_classes)
        except ValueError as error:
            raise ConfigError("train", [Problem("", str(error))]) from None
        return min(1.0, self.smoothing / ((num_classes - 1) / num_classes))


def build_criterion(config: TrainConfig) -> Criterion:
    """Build the loss of a training."""
    return Criterion(config.label_smoothing, over_others=config.label_smoothing_over == "others")
