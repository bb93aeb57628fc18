"""The covariance times one over the root of its size (recipes: `scale_norm`).

Shape letters: B batch, D channels, M positions.
"""

import torch
from torch import Tensor, nn

from workloads.pooling.second_order import SecondOrderPooling


class ScaleNorm(nn.Module):
    """Multiply matrices (..., D, E) by size^(-1/2), or by a learnt number that starts there.

    Args:
        size: D.
        learnable: Whether the number is a parameter.
    """

    def __init__(self, size: int, *, learnable: bool = False) -> None:
        super().__init__()
        self.size = size
        self.learnable = learnable
        if learnable:
            self.scale = nn.Parameter(torch.tensor(size**-0.5))

    def forward(self, matrix: Tensor) -> Tensor:
        if self.learnable:
            return matrix * self.scale.to(matrix.dtype)
        return matrix * self.size**-0.5

    def extra_repr(self) -> str:
        return f"size={self.size}, learnable={self.learnable}"


class ScaleNormPooling(SecondOrderPooling):
    """Pool features to their covariance times C^(-1/2).

    (B, C, H, W) or (B, N, C) -> Sigma (B, C, C) / sqrt(C) -> vector. Linear in the covariance: no
    normalisation by the features' own size.

    Args:
        in_channels: C.
        centred: Subtract each channel's mean over the positions; False pools the second moment.
        vector: Order of the vector, see `workloads.pooling.vectorise`.
        learnable: Whether the factor is a parameter, which starts at C^(-1/2).

    References:
        Xie et al., SoT: Delving Deeper into Classification Head for Transformer, 2021, where both
        forms are options of the cross-covariance head.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        centred: bool = True,
        vector: str = "upper_rows",
        learnable: bool = False,
    ) -> None:
        super().__init__(in_channels=in_channels, centred=centred, vector=vector)
        self.normaliser = ScaleNorm(in_channels, learnable=learnable)

    def normalise(self, cov_BDD: Tensor) -> Tensor:
        return self.normaliser(cov_BDD)

    def macs(self, num_positions: int) -> dict[str, int]:
        """Count the covariance and one multiply per entry."""
        return super().macs(num_positions) | {"normalisation": self.in_channels**2}
