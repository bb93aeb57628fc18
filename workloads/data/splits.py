"""A fixed share of each class held out, for sources without a split of their own."""

import numpy as np
import torch
from torch import Tensor


def hold_out(labels: Tensor, val_fraction: float) -> Tensor:
    """Choose images for validation: a fixed shuffle of each class, its first share.

    Args:
        labels: (N,) int64.
        val_fraction: Share of each class; at least one image goes each way where there are two.

    Returns:
        Which images are held out, (N,) bool.
    """
    values = labels.numpy()
    held_out = np.zeros(len(values), dtype=bool)
    for label in np.unique(values).tolist():
        members = np.flatnonzero(values == label)
        shuffled = np.random.Generator(np.random.Philox(key=label)).permutation(members)
        count = min(max(round(val_fraction * len(members)), 1), len(members) - 1)
        held_out[shuffled[:count]] = True
    return torch.from_numpy(held_out)
