"""Multi-head cross-covariance of two projections of tokens (recipes: `cross_cov`).

Shape letters: B batch, C channels, M positions, P projections (q and k), H heads, W and V sides
of a head's matrix, D = H W channels of all heads side by side.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.pooling.base import GlobalPooling
from workloads.pooling.dropcov import (
    ChannelImportance,
    adaptive_rate,
    channel_mask,
    check_rate,
)
from workloads.pooling.epn import ElementwisePower
from workloads.pooling.functional import rounding_noise, widen
from workloads.pooling.layer_norm import RowLayerNorm
from workloads.pooling.scale_norm import ScaleNorm
from workloads.pooling.svpn import SingularValuePower


class CrossCovariancePooling(GlobalPooling):
    """Pool tokens to the cross-covariances of two projections of them, head by head.

    (B, N, C) or (B, C, H, W) -> per head q, k (B, N, head_width), linear without bias ->
    channel dropout -> (1 / N) q^T k (B, head_width, head_width) -> normaliser -> entries, row by
    row, head after head, (B, num_heads * head_width^2) -> dropout of entries. One token, or equal
    tokens, give matrices of zeros before the normaliser.

    In training a channel of a head is dropped from q and k alike, by one mask for each image.

    With `adaptive` the rate follows DropCov. Its channels are those of all heads side by side,
    D = num_heads * head_width, with (q_i, k_i) as one channel:

        w   = softmax of conv1d(mean over the tokens of (q + k) / 2)
        q'  = q (1 + w),  k' = k (1 + w)                      gate, in training only
        c   = row sums of (cov(q') + cov(k')) / 2             D x D, across heads
        rho = clip(1 - 10 / log2(D) * mean_B cos(w, c), 0, 1)

    No gradient goes through rho; see `DropCovPooling` for this and for its guards.

    Args:
        in_channels: C.
        num_heads: Heads, each with its own projections and matrix.
        head_width: Channels of q and of k in a head.
        normaliser: Of each matrix: `none`; `epn`, signed roots with columns of length one;
            `svpn`; `layer_norm` of the rows; `scale_norm`, times head_width^(-1/2).
        centred: Subtract each projected channel's mean over the tokens.
        adaptive: Whether the rate of the channel dropout follows the features, or is `rate`.
        rate: Probability that a channel is dropped where it is not adaptive.
        dropout: Probability that an entry of the vector is dropped.

    Raises:
        ValueError: An unknown normaliser, or a number out of its range.

    References:
        Xie et al., SoT: Delving Deeper into Classification Head for Transformer, 2021.
        Wang, Gao, Zhang, Xie, Li, Hu, DropCov: A Simple yet Effective Method for Improving Deep
        Architectures, NeurIPS 2022, for the dropout of channels.

    Deviation:
        The published code centres by one number per image, not per channel; its channel mask
        drops tokens at a fixed rate; it has a third projection that is never used. The adaptive
        rate for tokens is not published: the definition above is ours. Tokens are centred before
        the projections, gate and mask are applied to the matrix: the same numbers, at less cost.
    """

    rho: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        num_heads: int = 6,
        head_width: int = 24,
        normaliser: str = "none",
        centred: bool = True,
        adaptive: bool = False,
        rate: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        if normaliser not in NORMALISERS:
            raise ValueError(
                f"normaliser must be one of {', '.join(NORMALISERS)}, got {normaliser!r}"
            )
        if num_heads < 1 or head_width < 1:
            raise ValueError(
                f"num_heads and head_width must be at least 1, got {num_heads} and {head_width}"
            )
        if adaptive and num_heads * head_width < 2:
            raise ValueError("an adaptive rate needs at least 2 channels in all heads, got 1")
        check_rate("rate", rate)
        check_rate("dropout", dropout)
        super().__init__(in_channels=in_channels, out_features=num_heads * head_width**2)
        self.num_heads, self.head_width = num_heads, head_width
        self.centred, self.adaptive = centred, adaptive
        self.rate, self.dropout = rate, dropout
        self.projections = nn.Linear(in_channels, 2 * num_heads * head_width, bias=False)
        self.normaliser = NORMALISERS[normaliser](head_width)
        self.importance = ChannelImportance() if adaptive else None
        self.register_buffer("rho", torch.zeros(()), persistent=False)
        self._has_dropped = False

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(device_type=x.device.type, enabled=False):
            x_BCM = widen(self.positions_last(x))
            mean_BC1 = x_BCM.mean(dim=2, keepdim=True)
            if self.centred:
                x_BCM = _zero_rounding(x_BCM - mean_BC1, mean_BC1)
            qk_BPHWM = self._project(x_BCM)
            q_BHWM, k_BHWM = qk_BPHWM.unbind(dim=1)
            cov_BHWV = q_BHWM @ k_BHWM.transpose(2, 3) / x_BCM.shape[2]
            factor_BHW = self._factor(qk_BPHWM, mean_BC1) if self.training else None
            if factor_BHW is not None:
                cov_BHWV = cov_BHWV * factor_BHW[..., :, None] * factor_BHW[..., None, :]
            z = self.normaliser(cov_BHWV).flatten(1)
            return F.dropout(z, self.dropout, self.training).to(x.dtype)

    def _project(self, x_BCM: Tensor) -> Tensor:
        """Return q and k of all heads: (B, C, M) to (B, P, H, W, M)."""
        weight = self.projections.weight.to(x_BCM.dtype)  # wide, whatever type the weights have
        qk = F.linear(x_BCM.transpose(1, 2), weight).transpose(1, 2)
        return qk.unflatten(1, (2, self.num_heads, self.head_width))

    def _factor(self, qk_BPHWM: Tensor, mean_BC1: Tensor) -> Tensor | None:
        """Return what q's and k's channels are multiplied by in training, None for nothing."""
        gate_BD = None
        if self.importance is not None:
            w_BD = self.importance(self._project(mean_BC1).mean(dim=1).flatten(1))
            gate_BD = 1.0 + w_BD
            rho = _rate(w_BD, gate_BD, qk_BPHWM.flatten(2, 3))
        elif self.rate > 0.0:
            rho = qk_BPHWM.new_full((), self.rate)
        else:
            return None
        self.rho.copy_(rho)
        self._has_dropped = True
        factor_BD = channel_mask(rho, qk_BPHWM.shape[0], self.num_heads * self.head_width)
        factor_BD = factor_BD if gate_BD is None else gate_BD * factor_BD
        return factor_BD.unflatten(1, (self.num_heads, self.head_width))

    def observables(self) -> dict[str, Tensor]:
        return {"rho": self.rho} if self._has_dropped else {}

    def macs(self, num_positions: int) -> dict[str, int]:
        width = self.num_heads * self.head_width
        return {
            "projections": 2 * self.in_channels * width * num_positions,
            "covariance": width * self.head_width * num_positions,
        }

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, num_heads={self.num_heads}, head_width={self.head_width}, "
            f"centred={self.centred}, adaptive={self.adaptive}, rate={self.rate}, "
            f"dropout={self.dropout}"
        )


def _zero_rounding(centred_BCM: Tensor, mean_BC1: Tensor) -> Tensor:
    """Return zeros for images whose variation is mere rounding.

    A normaliser would make features of it, and the rate a statement.
    """
    with torch.no_grad():
        trace_B = centred_BCM.square().sum(dim=(1, 2)) / centred_BCM.shape[2]
        dead_B = trace_B <= rounding_noise(mean_BC1)[:, 0, 0]
    return centred_BCM.masked_fill(dead_B[:, None, None], 0.0)


@torch.no_grad()
def _rate(w_BD: Tensor, gate_BD: Tensor, qk_BPDM: Tensor) -> Tensor:
    """Return rho from the row sums of the gated q's and k's mean covariance.

    What is centred comes centred; where nothing is, these are second moments.
    """
    sums_BPM = torch.einsum("bpdm,bd->bpm", qk_BPDM, gate_BD)
    rows_BD = gate_BD * torch.einsum("bpdm,bpm->bd", qk_BPDM, sums_BPM)  # times 2 M: no matter
    return adaptive_rate(w_BD, rows_BD, w_BD.new_zeros(()))


NORMALISERS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda size: nn.Identity(),
    "epn": lambda size: ElementwisePower(l2="columns"),
    "svpn": lambda size: SingularValuePower(size),
    "layer_norm": lambda size: RowLayerNorm(size),
    "scale_norm": lambda size: ScaleNorm(size),
}
"""What a head's matrix goes through, built for its side."""
