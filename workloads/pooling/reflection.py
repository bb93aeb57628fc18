"""Centred features with one column less.

Shape letters: B batch, D channels, M positions.

Centring empties one direction of the M positions, that of the vector of ones. The Householder
reflection that exchanges it with the first axis turns features X into [sqrt(M) mean, Y]: Y has
M - 1 columns and Y Y^T is the same matrix as that of the centred features. It costs what centring
costs, and the 49 positions of a 7 x 7 map become 48, a multiple of the vector width of CPUs.
"""

import torch
from torch import Tensor


def reflect(x_BDM: Tensor, mean_BD1: Tensor) -> Tensor:
    """Return Y (B, D, M - 1) with Y Y^T = Xc Xc^T, from X, M of at least 2, and its means."""
    root = x_BDM.shape[2] ** 0.5
    centred_BDM = x_BDM - mean_BD1
    # Columns of Xc sum to zero, so that a covariance forgives its means their rounding; those of Y
    # do not. Features far from zero need what the means have left over.
    rest_BD1 = centred_BDM.mean(dim=2, keepdim=True)
    return centred_BDM[:, :, 1:] - (rest_BD1 + (rest_BD1 - centred_BDM[:, :, :1]) / (root - 1))


def reflect_gradient(grad_BDm: Tensor) -> Tensor:
    """Return the gradient of X from that of Y: (B, D, M - 1) to (B, D, M)."""
    num_positions = grad_BDm.shape[2] + 1
    sum_BD1 = grad_BDm.sum(dim=2, keepdim=True)
    rest_BDm = grad_BDm - sum_BD1 / (num_positions - num_positions**0.5)
    return torch.cat((sum_BD1 / num_positions**0.5, rest_BDm), dim=2)
