"""Singular-value power normalisation by power iteration (recipes: `svpn`).

Shape letters: B batch, D and E sides of a matrix, M positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.pooling.guarded import guarded_covariance
from workloads.pooling.second_order import SecondOrderPooling

_REMAINDER_EPS = 1e-5
"""Keeps the remainder's divisor from zero; published."""


class SingularValuePower(nn.Module):
    """Raise the largest singular values of matrices (..., D, E) to a power, without an SVD.

    From a learnt start vector v, drawn from N(0, 1), the power iteration u = n(A v), v = n(A^T u),
    with n(v) = v / |v|, gives s = u^T A v, which is taken out of the matrix, R = A - s u v^T, and
    so on for the next value, from a start vector of its own. The result is

        sum_k s_k^alpha u_k v_k^T + R / (s_last^(1 - alpha) + 1e-5)

    A value up to the machine spacing at the largest one (times the side) counts as zero: it is left
    out with its vectors and is not the last, so that matrices that are zero or of lower rank than
    `num_values` have finite gradients.

    Args:
        size: E. All matrices share the start vectors, parameter `start` (num_values, E).
        alpha: The power.
        num_values: How many values are raised apart.
        num_iters: Steps of the iteration for each.

    Raises:
        ValueError: `num_values` is not from 1 to `size`, or `num_iters` is below 1.
    """

    def __init__(
        self, size: int, *, alpha: float = 0.5, num_values: int = 1, num_iters: int = 1
    ) -> None:
        super().__init__()
        if not 1 <= num_values <= size:
            raise ValueError(f"num_values must be from 1 to the size {size}, got {num_values}")
        if num_iters < 1:
            raise ValueError(f"num_iters must be at least 1, got {num_iters}")
        self.alpha = alpha
        self.num_values = num_values
        self.num_iters = num_iters
        # One start for each value: a start that is a singular vector is lost with its value.
        self.start = nn.Parameter(torch.randn(num_values, size))

    def forward(self, matrix: Tensor) -> Tensor:
        spacing = max(matrix.shape[-2:]) * torch.finfo(matrix.dtype).eps
        rest, raised = matrix, torch.zeros_like(matrix)
        least = divisor = torch.zeros_like(matrix[..., :1, :1])
        for k in range(self.num_values):
            u, v = self._singular_vectors(rest, self.start[k].to(matrix.dtype))
            value = u.mT @ rest @ v
            if k == 0:
                least = spacing * value.detach()
            dead = value <= least
            # The root of a one stands in for that of a zero, whose derivative is infinite.
            safe = value.masked_fill(dead, 1.0)
            outer = (u @ v.mT).masked_fill(dead, 0.0)
            rest = rest - safe * outer
            raised = raised + safe**self.alpha * outer
            divisor = torch.where(dead, divisor, safe ** (1 - self.alpha))
        return raised + rest / (divisor + _REMAINDER_EPS)

    def _singular_vectors(self, matrix: Tensor, start_E: Tensor) -> tuple[Tensor, Tensor]:
        """Return approximate first singular vectors: (..., D, 1) and (..., E, 1)."""
        u = _unit(matrix @ start_E[:, None])
        v = _unit(matrix.mT @ u)
        for _ in range(self.num_iters - 1):
            u = _unit(matrix @ v)
            v = _unit(matrix.mT @ u)
        return u, v

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, num_values={self.num_values}, num_iters={self.num_iters}"


def _unit(column: Tensor) -> Tensor:
    """Return columns (..., D, 1) of length one, whatever their size; zeros stay zeros.

    The size, taken out first, is a constant to the gradient: a unit vector does not depend on it.
    """
    size = column.detach().abs().amax(dim=-2, keepdim=True)
    return F.normalize(column / size.masked_fill(size == 0, 1.0), dim=-2)


class SvpnPooling(SecondOrderPooling):
    """Pool features to their covariance, its largest singular values raised to a power.

    (B, C, H, W) or (B, N, C) -> Sigma (B, C, C) -> `SingularValuePower` -> vector -> dropout. One
    position, or a map without variation, gives zero with zero gradient. The result is symmetric
    only as far as the power iteration has converged.

    Args:
        in_channels: C.
        centred: Subtract each channel's mean over the positions; False pools the second moment.
        vector: Order of the vector, see `workloads.pooling.vectorise`.
        alpha: The power; 0.5 is published.
        num_values: How many singular values are raised apart; 1 is published.
        num_iters: Steps of the power iteration for each; 1 is published.
        dropout: Rate on the entries of the vector, in training.

    References:
        Xie et al., SoT: Delving Deeper into Classification Head for Transformer, 2021.

    Deviation:
        Singular values of mere rounding are left out. Published code applies it to the
        cross-covariance of two projections; here it is to be had for any covariance.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        centred: bool = True,
        vector: str = "upper_rows",
        alpha: float = 0.5,
        num_values: int = 1,
        num_iters: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_channels=in_channels, centred=centred, vector=vector)
        self.normaliser = SingularValuePower(
            in_channels, alpha=alpha, num_values=num_values, num_iters=num_iters
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(super().forward(x))

    def matrix(self, x_BDM: Tensor) -> Tensor:
        return self.normalise(guarded_covariance(x_BDM, centred=self.centred))

    def normalise(self, cov_BDD: Tensor) -> Tensor:
        return self.normaliser(cov_BDD)

    def macs(self, num_positions: int) -> dict[str, int]:
        """Count the covariance, and for each value two products per step, s, u v^T and R."""
        per_value = 2 * self.normaliser.num_iters + 3
        matrix = self.in_channels**2
        count = self.normaliser.num_values * per_value * matrix
        return super().macs(num_positions) | {"normalisation": count}
