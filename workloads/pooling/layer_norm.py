"""Layer normalisation of each row of the covariance (recipes: `layer_norm`).

Shape letters: B batch, D channels, M positions.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from workloads.pooling.second_order import SecondOrderPooling


class RowLayerNorm(nn.LayerNorm):
    """Normalise each row of matrices (..., D, E) to mean 0 and variance 1, then scale and shift.

    Computed in the type of the matrices, whatever type the weights have.

    Args:
        size: E. One weight and one bias for each column, shared by all rows.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size, eps=1e-5)

    def forward(self, matrix: Tensor) -> Tensor:
        weight, bias = self.weight.to(matrix.dtype), self.bias.to(matrix.dtype)
        return F.layer_norm(matrix, self.normalized_shape, weight, bias, self.eps)


class LayerNormPooling(SecondOrderPooling):
    """Pool features to their covariance, each row layer-normalised and scaled by learnt weights.

    (B, C, H, W) or (B, N, C) -> Sigma (B, C, C) -> (a - mean) / sqrt(var + 1e-5) * weight + bias
    along the last axis -> vector. The result is not symmetric: a triangle holds the part of each
    row from the diagonal on, `full` holds all. A map without variation gives the bias.

    Args:
        in_channels: C.
        centred: Subtract each channel's mean over the positions; False pools the second moment.
        vector: Order of the vector, see `workloads.pooling.vectorise`.

    References:
        Xie et al., SoT: Delving Deeper into Classification Head for Transformer, 2021, where it
        is an option of the cross-covariance head.
    """

    def __init__(
        self, *, in_channels: int, centred: bool = True, vector: str = "upper_rows"
    ) -> None:
        super().__init__(in_channels=in_channels, centred=centred, vector=vector)
        self.normaliser = RowLayerNorm(in_channels)

    def normalise(self, cov_BDD: Tensor) -> Tensor:
        return self.normaliser(cov_BDD)

    def macs(self, num_positions: int) -> dict[str, int]:
        """Count the covariance and two multiply-adds per entry: variance, then scale and shift."""
        return super().macs(num_positions) | {"normalisation": 2 * self.in_channels**2}
