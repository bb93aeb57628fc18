"""The covariance that normalisers of magnitude need: exactly zero where it is mere rounding.

Shape letters: B batch, D channels, M positions.
"""

import torch
from torch import Tensor

from workloads.pooling.functional import centre, rounding_noise


def guarded_features(x_BDM: Tensor, *, centred: bool = True) -> Tensor:
    """Return F with F F^T the covariance, zero for images without variation: (B, D, M).

    A normaliser that lifts small values (a root, a length of one) would make features of the
    rounding of a constant map; zero comes with zero gradient. A second moment (`centred` False) is
    no difference of equal numbers and is left as it is. NaN and infinity go through.
    """
    scale = x_BDM.shape[2] ** -0.5
    if not centred:
        return x_BDM * scale
    root_BDM = centre(x_BDM) * scale
    with torch.no_grad():
        trace_B11 = root_BDM.square().sum(dim=(1, 2))[:, None, None]
        dead_B11 = trace_B11 <= rounding_noise(x_BDM)
    return root_BDM.masked_fill(dead_B11, 0.0)


def guarded_covariance(x_BDM: Tensor, *, centred: bool = True) -> Tensor:
    """Return the covariance, zero with zero gradient for images without variation: (B, D, D)."""
    root_BDM = guarded_features(x_BDM, centred=centred)
    return root_BDM @ root_BDM.mT
