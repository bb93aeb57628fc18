"""iSQRT-COV: covariance, normalised by an iterative matrix square root (recipes: `isqrt`)."""

import torch
from torch import Tensor

from workloads.pooling.base import GlobalPooling
from workloads.pooling.functional import (
    centre,
    covariance,
    rounding_noise,
    upper_triangle,
    upper_triangle_index,
    widen,
)
from workloads.pooling.matrix_roots import newton_schulz_sqrt, newton_schulz_sqrt_gram


class IsqrtPooling(GlobalPooling):
    """Pool features to the upper triangle of the square root of their covariance.

    (B, C, H, W) -> Sigma (B, C, C), divisor N = H W -> K Newton-Schulz updates, trace
    pre-normalised, sqrt(trace) post-compensated -> (B, C (C + 1) / 2), row by row.

    Computed in float32 or wider whatever autocast says, and cast back. One position, or a map
    without variation, gives zero with zero gradient.

    Args:
        in_channels: C.
        num_iters: K, the number of updates of Y; 5 in the papers' networks. Above about 25 the
            iteration diverges in float32 on rank-deficient covariances.

    References:
        Li, Xie, Wang, Gao, Towards Faster Training of Global Covariance Pooling Networks by
        Iterative Matrix Square Root Normalization, CVPR 2018.

    Deviation:
        With at most half as many positions as channels the same polynomial is evaluated on the
        N x N Gram matrix of the features: the same function and gradient, at less cost.
    """

    index_T: Tensor

    def __init__(self, *, in_channels: int, num_iters: int = 5) -> None:
        if num_iters < 1:
            raise ValueError(f"num_iters must be at least 1, got {num_iters}")
        super().__init__(in_channels=in_channels, out_features=in_channels * (in_channels + 1) // 2)
        self.num_iters = num_iters
        self.register_buffer("index_T", upper_triangle_index(in_channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(device_type=x.device.type, enabled=False):
            x_BDM = widen(x).flatten(2)
            noise_B11 = rounding_noise(x_BDM)
            if 2 * x_BDM.shape[2] <= x_BDM.shape[1]:
                root_BDD = newton_schulz_sqrt_gram(centre(x_BDM), self.num_iters, noise_B11)
            else:
                root_BDD = newton_schulz_sqrt(covariance(x_BDM), self.num_iters, noise_B11)
            return upper_triangle(root_BDD, self.index_T).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_iters={self.num_iters}"
