"""MPN-COV: the covariance raised to a power by its eigenvalues (recipes: `mpn_eig`).

Shape letters: B batch, D channels, M positions.
"""

import torch
from torch import Tensor

from workloads.pooling.gram import function_by_gram, gram_is_cheaper, power_by_gram
from workloads.pooling.guarded import guarded_features
from workloads.pooling.second_order import SecondOrderPooling
from workloads.pooling.spectral import matrix_power


class MpnEigPooling(SecondOrderPooling):
    """Pool features to their covariance's power U diag((l + eps)^alpha) U^T.

    (B, C, H, W) or (B, N, C) -> Sigma = U diag(l) U^T (B, C, C) -> power -> (B, C (C + 1) / 2).
    Computed in float64 and cast back: of a covariance of fewer positions than channels most
    eigenvalues are zero, and the root of float32's rounding of zero is no longer small.

    With an eps of zero, one position or a map without variation gives zero with zero gradient, and
    eigenvalues not larger than C times the machine spacing at the largest one are zero.

    Args:
        in_channels: C.
        centred: Subtract each channel's mean over the positions; False pools the second moment.
        vector: Order of the vector, see `workloads.pooling.vectorise`.
        alpha: The power, above 0; 0.5, the square root, is published.
        eps: Added to every eigenvalue; 0 is published.

    Raises:
        ValueError: `alpha` is not above 0, or `eps` is below 0.

    References:
        Li et al., Is Second-order Information Helpful for Large-scale Visual Recognition?,
        ICCV 2017.

    Deviation:
        The published layer divides by gaps between eigenvalues in its backward and drops what is
        infinite, which loses part of the gradient wherever eigenvalues are equal; this one is
        exact there (`workloads.pooling.spectral`). Its threshold for zero eigenvalues is one
        spacing of float32; ours is C spacings of float64, since each may hold as many roundings.
        With fewer positions than channels the eigenvalues are those of the positions' Gram matrix
        (`workloads.pooling.gram`): the same function and gradient, at less cost.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        centred: bool = True,
        vector: str = "upper_rows",
        alpha: float = 0.5,
        eps: float = 0.0,
    ) -> None:
        if alpha <= 0:
            raise ValueError(f"alpha must be above 0, got {alpha}; log_euclidean is its limit at 0")
        if eps < 0:
            raise ValueError(f"eps must be at least 0, got {eps}")
        super().__init__(in_channels=in_channels, centred=centred, vector=vector)
        self.alpha = alpha
        self.eps = eps

    def matrix(self, x_BDM: Tensor) -> Tensor:
        root_BDM = guarded_features(x_BDM.double(), centred=self.centred)
        if not gram_is_cheaper(root_BDM, solves=2 if self.eps else 1):
            return self.normalise(root_BDM @ root_BDM.mT)
        if self.eps:
            return function_by_gram(root_BDM, self.normalise, self.eps**self.alpha)
        return power_by_gram(root_BDM, self.alpha)

    def normalise(self, cov_BDD: Tensor) -> Tensor:
        if self.eps:
            eye_DD = torch.eye(cov_BDD.shape[1], dtype=cov_BDD.dtype, device=cov_BDD.device)
            cov_BDD = cov_BDD + self.eps * eye_DD
        return matrix_power(cov_BDD, self.alpha, floor=self.eps)

    def macs(self, num_positions: int) -> dict[str, int]:
        """Count the covariance and the product U diag(f) U^T; the eigenvalues are left out.

        Their algorithm is iterative and its cost is not one of products.
        """
        return super().macs(num_positions) | {"normalisation": self.in_channels**3}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, alpha={self.alpha}, eps={self.eps}"
