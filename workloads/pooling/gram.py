"""Functions of a covariance by way of the smaller Gram matrix of the positions.

Shape letters: B batch, D channels, M positions.

With S = F F^T, D x D, and G = F^T F, M x M, the eigenvalues of S are those of G and D - M zeros. So

    S^a = F G^(a - 1) F^T,   f(S) = f(0) I + W (f(G) - f(0) I) W^T  with  W = F G^(-1/2)

where powers of zero are zero. Both sides are the same function of F and have the same gradient, but
eigenvalues cost the cube of the side: a 7 x 7 map has 49 positions at 256 channels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from workloads.pooling.spectral import matrix_power


def gram_is_cheaper(root_BDM: Tensor, *, solves: int) -> bool:
    """Say whether the positions' side costs less: `solves` eigen-problems there, or one here.

    As measured on a CPU at 64 to 256 channels: with one solve up to 7/8 as many positions as
    channels, with two up to half.
    """
    channels, positions = root_BDM.shape[1:]
    return 8 * positions <= 7 * channels if solves == 1 else 2 * positions <= channels


def power_by_gram(root_BDM: Tensor, exponent: float) -> Tensor:
    """Raise F F^T to a power above zero, in one solve: (B, D, M) to (B, D, D)."""
    gram_BMM = root_BDM.mT @ root_BDM
    return root_BDM @ matrix_power(gram_BMM, exponent - 1) @ root_BDM.mT


def function_by_gram(
    root_BDM: Tensor, function: Callable[[Tensor], Tensor], at_zero: Tensor | float
) -> Tensor:
    """Apply a function of symmetric matrices to F F^T, in two solves: (B, D, M) to (B, D, D).

    Args:
        root_BDM: F.
        function: Maps (B, M, M) to (B, M, M).
        at_zero: Its value for an eigenvalue of zero, a number or (B, 1, 1).
    """
    gram_BMM = root_BDM.mT @ root_BDM
    frame_BDM = root_BDM @ matrix_power(gram_BMM, -0.5)
    inner_BMM = function(gram_BMM) - at_zero * _eye(gram_BMM)
    return frame_BDM @ inner_BMM @ frame_BDM.mT + at_zero * _eye(frame_BDM)


def _eye(like: Tensor) -> Tensor:
    """Return the identity of the side of the first matrix axis."""
    return torch.eye(like.shape[1], dtype=like.dtype, device=like.device)
