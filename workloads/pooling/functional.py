"""Covariance and its vector form.

Shape letters: B batch, D channels, M positions (H * W), T = D (D + 1) / 2.
"""

import torch
from torch import Tensor

_NOISE_EPS = 4.0
"""Rounding of a mean, in eps of the mean, with a margin of two."""


def widen(x: Tensor) -> Tensor:
    """Return x in float32, or as it is where it is wider already."""
    return x if x.dtype == torch.float64 else x.float()


def centre(x_BDM: Tensor) -> Tensor:
    """Subtract each channel's mean over the positions: (B, D, M) to (B, D, M).

    The same numbers as a product with the M x M centring matrix, without that matrix.
    """
    return x_BDM - x_BDM.mean(dim=2, keepdim=True)


def covariance(x_BDM: Tensor) -> Tensor:
    """Return the covariance of the channels over the positions: (B, D, M) to (B, D, D).

    Sigma = (1/M) (X - mu 1^T) (X - mu 1^T)^T, with divisor M and not M - 1, as published.
    Its rank is at most min(D, M - 1); one position (M = 1) gives zero.

    References:
        Li et al., Is Second-order Information Helpful for Large-scale Visual Recognition?,
        ICCV 2017.
    """
    centred_BDM = centre(x_BDM)
    return centred_BDM @ centred_BDM.transpose(1, 2) / x_BDM.shape[2]


@torch.no_grad()
def rounding_noise(x_BDM: Tensor) -> Tensor:
    """Return the trace up to which a covariance is mere rounding: (B, D, M) to (B, 1, 1).

    The mean of M equal numbers differs from them by an eps or two, so a constant map has a
    "variance" of about (eps * mean)^2 per channel, which a root normalised by the trace would
    blow up to the size of a feature.
    """
    noise_BD1 = _NOISE_EPS * torch.finfo(x_BDM.dtype).eps * x_BDM.mean(dim=2, keepdim=True)
    return noise_BD1.square().sum(dim=1, keepdim=True)


def upper_triangle_index(size: int) -> Tensor:
    """Return the T places of the upper triangle, diagonal included, in a flattened matrix.

    The order is row by row. It is part of every checkpoint: the classifier's columns follow it.
    """
    row, column = torch.triu_indices(size, size)
    return row * size + column


def upper_triangle(matrix_BDD: Tensor, index_T: Tensor) -> Tensor:
    """Take the upper triangle as a vector: (B, D, D) to (B, T). Nothing is scaled by sqrt(2)."""
    return matrix_BDD.flatten(1).index_select(1, index_T)
