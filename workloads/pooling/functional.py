"""The statistics that are pooled.

Shape letters: B batch, D channels, M positions.
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


def covariance(x_BDM: Tensor, *, centred: bool = True) -> Tensor:
    """Return the covariance of the channels over the positions: (B, D, M) to (B, D, D).

    Sigma = (1/M) (X - mu 1^T) (X - mu 1^T)^T, with divisor M and not M - 1, as published.
    Its rank is at most min(D, M - 1); one position (M = 1) gives zero. Without centring it is
    the second moment X X^T / M.

    References:
        Li et al., Is Second-order Information Helpful for Large-scale Visual Recognition?,
        ICCV 2017.
    """
    centred_BDM = centre(x_BDM) if centred else x_BDM
    # The features are scaled, not the result: a D x D matrix is mostly the larger of the two, and
    # its division one more pass forward and back.
    root_BDM = centred_BDM * x_BDM.shape[2] ** -0.5
    return root_BDM @ root_BDM.transpose(1, 2)


@torch.no_grad()
def rounding_noise(x_BDM: Tensor) -> Tensor:
    """Return the trace up to which a covariance is mere rounding: (B, D, M) to (B, 1, 1).

    The mean of M equal numbers differs from them by an eps or two, so a constant map has a
    "variance" of about (eps * mean)^2 per channel, which a root normalised by the trace would
    blow up to the size of a feature.
    """
    noise_BD1 = _NOISE_EPS * torch.finfo(x_BDM.dtype).eps * x_BDM.mean(dim=2, keepdim=True)
    return noise_BD1.square().sum(dim=1, keepdim=True)
