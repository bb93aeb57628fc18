"""iSQRT-COV: covariance, normalised by an iterative matrix square root (recipes: `isqrt`)."""

import torch
from torch import Tensor

from workloads.pooling.fast_root import FastRoot, pack, plain_root
from workloads.pooling.functional import widen
from workloads.pooling.matrix_roots import PRENORMS
from workloads.pooling.root_plan import is_spectral, plan_root
from workloads.pooling.second_order import SecondOrderPooling
from workloads.pooling.spectral_root import SpectralRoot
from workloads.pooling.vectorise import mirrored


class IsqrtPooling(SecondOrderPooling):
    """Pool features to the upper triangle of the square root of their covariance.

    (B, C, H, W) -> Sigma (B, C, C), divisor M = H W -> K Newton-Schulz updates, pre-normalised by
    the trace, sqrt(trace) post-compensated -> (B, C (C + 1) / 2), row by row.

    Computed in float32 or wider whatever autocast says, and cast back; on CUDA with TF32 products
    where the features came as bfloat16 or float16 and K is at most 6. One position, or a map
    without variation, gives zero with zero gradient.

    Args:
        in_channels: C.
        num_iters: K, the number of updates; 5 in the papers' networks.
        prenorm: What brings the eigenvalues into [0, 1] and is undone after the updates: `trace`
            as in the papers' networks, or `frobenius`, the Frobenius norm.
        centred: Subtract each channel's mean over the positions.
        vector: Order of the vector, see `workloads.pooling.vectorise`.

    References:
        Li, Xie, Wang, Gao, Towards Faster Training of Global Covariance Pooling Networks by
        Iterative Matrix Square Root Normalization, CVPR 2018.

    Deviation:
        The same function and gradient by other means. Where it is cheaper, the polynomial that the
        K updates are is evaluated on the M x M Gram matrix of the features. In float32 with K of 3
        or 5 it is evaluated by fewer products, within 2e-6 of each eigenvalue's root (a rounding
        error is 1e-6); in float64 and at other K by the updates themselves; above K of 12 (20 in
        float64), where rounding takes over, on eigenvalues. The backward pass is written by hand;
        second derivatives go through the plain updates, and there are none on eigenvalues.
    """

    mirror: Tensor | None

    def __init__(
        self,
        *,
        in_channels: int,
        num_iters: int = 5,
        prenorm: str = "trace",
        centred: bool = True,
        vector: str = "upper_rows",
    ) -> None:
        if num_iters < 1:
            raise ValueError(f"num_iters must be at least 1, got {num_iters}")
        if prenorm not in PRENORMS:
            raise ValueError(f"prenorm must be one of {', '.join(PRENORMS)}, got {prenorm!r}")
        super().__init__(in_channels=in_channels, centred=centred, vector=vector)
        self.num_iters = num_iters
        self.prenorm = prenorm
        index = None if vector == "full" else self.vectoriser.index_T
        mirror = None if index is None else mirrored(index, in_channels)
        self.register_buffer("mirror", mirror, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(device_type=x.device.type, enabled=False):
            x_BDM = widen(self.positions_last(x))
            index = None if self.mirror is None else self.vectoriser.index_T
            narrow = x.dtype in (torch.bfloat16, torch.float16)
            return self._root(x_BDM, index, self.mirror, narrow=narrow).to(x.dtype)

    def matrix(self, x_BDM: Tensor) -> Tensor:
        return self._root(x_BDM, None, None).unflatten(1, (self.in_channels, self.in_channels))

    def _root(
        self, x_BDM: Tensor, index: Tensor | None, mirror: Tensor | None, *, narrow: bool = False
    ) -> Tensor:
        """Return the entries `index` of the root, all if there is none: (B, D, M) to (B, V)."""
        plan = plan_root(x_BDM, self.num_iters, self.prenorm, centred=self.centred, narrow=narrow)
        if is_spectral(self.num_iters, x_BDM.dtype):
            return SpectralRoot.apply(x_BDM, index, mirror, plan)
        if torch.compiler.is_compiling():
            return pack(plain_root(x_BDM, plan), index)
        return FastRoot.apply(x_BDM, index, mirror, plan)

    def macs(self, num_positions: int) -> dict[str, int]:
        products = 3 * self.num_iters - 3 or 1
        return {
            **super().macs(num_positions),
            "normalisation": products * self.in_channels**3,
        }

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_iters={self.num_iters}, prenorm={self.prenorm}"
