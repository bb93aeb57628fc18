"""Log-Euclidean pooling: the matrix logarithm of the covariance (recipes: `log_euclidean`).

Shape letters: B batch, D channels, M positions.
"""

import torch
from torch import Tensor

from workloads.pooling.gram import function_by_gram, gram_is_cheaper
from workloads.pooling.guarded import guarded_features
from workloads.pooling.second_order import SecondOrderPooling
from workloads.pooling.spectral import matrix_log

_FLOOR = 1e-12
"""Added to every eigenvalue besides the ridge, which is zero where the covariance is: the
logarithm of no features at all is then -27.6 on the diagonal instead of minus infinity. Far below
the eigenvalues of features of size one, and their ridge."""


class LogEuclideanPooling(SecondOrderPooling):
    """Pool features to log(Sigma + (ridge tr(Sigma) / C + 1e-12) I).

    (B, C, H, W) or (B, N, C) -> Sigma (B, C, C) -> U diag(log(l + ridge mean(l) + 1e-12)) U^T ->
    (B, C (C + 1) / 2). Computed in float64 and cast back. Fewer positions than channels are
    welcome: the ridge makes the zero eigenvalues positive, and follows the features' size, so
    that scaling them by s adds 2 log(s) to the diagonal and, but for the 1e-12, changes nothing
    else.

    One position, or a map without variation, gives log(1e-12) on the diagonal, the value that
    features tend to as they shrink, with zero gradient.

    Args:
        in_channels: C.
        centred: Subtract each channel's mean over the positions; False pools the second moment.
        vector: Order of the vector, see `workloads.pooling.vectorise`.
        ridge: Added to every eigenvalue, as a part of their mean; above 0. The default 1e-3 is
            ours.

    Raises:
        ValueError: `ridge` is not above 0.

    References:
        Arsigny et al., Geometric Means in a Novel Vector Space Structure on Symmetric
        Positive-Definite Matrices, 2007.

    Deviation:
        The papers define the logarithm for positive definite matrices only and give no ridge. With
        fewer positions than channels the eigenvalues are those of the positions' Gram matrix
        (`workloads.pooling.gram`): the same function and gradient, at less cost.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        centred: bool = True,
        vector: str = "upper_rows",
        ridge: float = 1e-3,
    ) -> None:
        if ridge <= 0:
            raise ValueError(f"ridge must be above 0, zero has no logarithm; got {ridge}")
        super().__init__(in_channels=in_channels, centred=centred, vector=vector)
        self.ridge = ridge

    def matrix(self, x_BDM: Tensor) -> Tensor:
        root_BDM = guarded_features(x_BDM.double(), centred=self.centred)
        if not gram_is_cheaper(root_BDM, solves=2):
            return self.normalise(root_BDM @ root_BDM.mT)
        shift_B11 = self._shift(root_BDM.square().sum(dim=(1, 2))[:, None, None])
        return function_by_gram(
            root_BDM, lambda gram_BMM: _shifted_log(gram_BMM, shift_B11), shift_B11.log()
        )

    def normalise(self, cov_BDD: Tensor) -> Tensor:
        trace_B11 = cov_BDD.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None]
        return _shifted_log(cov_BDD, self._shift(trace_B11))

    def _shift(self, trace_B11: Tensor) -> Tensor:
        return self.ridge / self.in_channels * trace_B11 + _FLOOR

    def macs(self, num_positions: int) -> dict[str, int]:
        """Count the covariance and the product U diag(f) U^T; the eigenvalues are left out.

        Their algorithm is iterative and its cost is not one of products.
        """
        return super().macs(num_positions) | {"normalisation": self.in_channels**3}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, ridge={self.ridge}"


def _shifted_log(matrix_BDD: Tensor, shift_B11: Tensor) -> Tensor:
    eye_DD = torch.eye(matrix_BDD.shape[1], dtype=matrix_BDD.dtype, device=matrix_BDD.device)
    return matrix_log(matrix_BDD + shift_B11 * eye_DD, floor=_FLOOR)
