"""DropCov: covariance of features whose channels are dropped at an adaptive rate.

Shape letters: B batch, D channels, M positions.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.pooling.functional import covariance, rounding_noise
from workloads.pooling.second_order import SecondOrderPooling

GATES = ("train", "always", "off")


class DropCovPooling(SecondOrderPooling):
    """Pool features to their covariance, in training with channels dropped at a rate rho.

    (B, C, H, W) -> Sigma (B, C, C) -> (B, C (C + 1) / 2), without a normalisation. In training:

        w   = softmax over channels of conv1d(mean of x)     importance, (B, C)
        x'  = x (1 + w)                                      gate
        c   = row sums of cov(x')                            (B, C)
        rho = clip(1 - 10 / log2(C) * mean_B cos(w, c), 0, max_rate)
        x'' = x' mask / (1 - rho)                            mask: one per image and channel
        z   = cov(x'')

    The more the important channels are the correlated ones, the less is dropped; there is no
    schedule, and rho may be 0 for long (`observables` shows it). The mask leaves the expected
    entries off the diagonal as they are and inflates the diagonal by 1 / (1 - rho).

    rho is one number per batch, on each rank from its own images. No gradient goes through it,
    so the convolution learns through the gate alone. Neither rho nor the mask waits for the
    device; the mask comes from the device's global generator. An image whose row sums are zero,
    rounding or not finite has no say in rho; if none has one, nothing is dropped. At rho = 1 all
    is dropped: the vector and every gradient are zero, which `max_rate` below 1 prevents.

    Args:
        in_channels: C; at least 2 where the rate is adaptive.
        adaptive: Whether the rate is rho, or `rate`.
        rate: Probability that a channel is dropped where it is not adaptive.
        gate: When features are gated: in `train`ing only, as published, `always`, or `off`. With
            it off, x' is x and nothing teaches the convolution: an adaptive rate then weighs by
            the random weights it was born with, which are kept fixed.
        max_rate: Cap of the rate, adaptive or not; 1 is published.
        centred: Subtract each channel's mean over the positions.
        vector: Order of the vector, see `workloads.pooling.vectorise`.

    References:
        Wang, Gao, Zhang, Xie, Li, Hu, DropCov: A Simple yet Effective Method for Improving Deep
        Architectures, NeurIPS 2022.

    Deviation:
        Row sums come from two products of a matrix and a vector, O(C N), instead of from the
        covariance; gate and mask are one factor per channel, applied after centring. Both give
        the published numbers. The guards above, `max_rate` and the other gates are ours.
    """

    rho: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        adaptive: bool = True,
        rate: float = 0.5,
        gate: str = "train",
        max_rate: float = 1.0,
        centred: bool = True,
        vector: str = "upper_rows",
    ) -> None:
        if gate not in GATES:
            raise ValueError(f"gate must be one of {', '.join(GATES)}, got {gate!r}")
        check_rate("rate", rate)
        check_rate("max_rate", max_rate)
        super().__init__(in_channels=in_channels, centred=centred, vector=vector)
        if adaptive and in_channels < 2:
            raise ValueError(f"an adaptive rate needs at least 2 channels, got {in_channels}")
        self.adaptive, self.rate, self.gate, self.max_rate = adaptive, rate, gate, max_rate
        self.importance: ChannelImportance | None = None
        if adaptive or gate != "off":
            self.importance = ChannelImportance().requires_grad_(gate != "off")
        self.register_buffer("rho", torch.zeros(()), persistent=False)
        self._has_trained = False

    def matrix(self, x_BDM: Tensor) -> Tensor:
        mean_BD1 = x_BDM.mean(dim=2, keepdim=True)
        if self.centred:
            x_BDM = x_BDM - mean_BD1
        scale_BD = self._scale(x_BDM, mean_BD1)
        if scale_BD is not None:  # after centring, which a factor per channel goes through
            x_BDM = x_BDM * scale_BD[:, :, None]
        return covariance(x_BDM, centred=False)

    def _scale(self, x_BDM: Tensor, mean_BD1: Tensor) -> Tensor | None:
        """Return what each channel is multiplied by (gate times mask), None for nothing."""
        gated = self.gate == "always" or (self.gate == "train" and self.training)
        w_BD = gate_BD = None
        if self.importance is not None and (gated or (self.adaptive and self.training)):
            w_BD = self.importance(mean_BD1[:, :, 0])
            gate_BD = 1.0 + w_BD if gated else None
        if not self.training:
            return gate_BD
        rho = self._rate(x_BDM, mean_BD1, w_BD, gate_BD)
        self.rho.copy_(rho)
        self._has_trained = True
        mask_BD = channel_mask(rho, x_BDM.shape[0], self.in_channels)
        return mask_BD if gate_BD is None else gate_BD * mask_BD

    @torch.no_grad()
    def _rate(
        self, x_BDM: Tensor, mean_BD1: Tensor, w_BD: Tensor | None, gate_BD: Tensor | None
    ) -> Tensor:
        if not self.adaptive or w_BD is None:
            return x_BDM.new_full((), min(self.rate, self.max_rate))
        gate_BD = torch.ones_like(w_BD) if gate_BD is None else gate_BD
        rows_BD = gate_BD * row_sums(x_BDM, gate_BD)
        noise_B = row_sum_noise(mean_BD1) if self.centred else w_BD.new_zeros(())
        return adaptive_rate(w_BD, rows_BD, noise_B).clamp(max=self.max_rate)

    def observables(self) -> dict[str, Tensor]:
        return {"rho": self.rho} if self._has_trained else {}

    def extra_repr(self) -> str:
        rate = f"max_rate={self.max_rate}" if self.adaptive else f"rate={self.rate}"
        return f"{super().extra_repr()}, adaptive={self.adaptive}, {rate}, gate={self.gate}"


class ChannelImportance(nn.Module):
    """Map channel means to weights that sum to one: (B, D) to (B, D).

    A convolution over neighbouring channels (three weights, no bias), then a softmax.

    References:
        Wang et al., ECA-Net: Efficient Channel Attention, CVPR 2020, with a sigmoid.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel_size=3, padding=1, bias=False)

    def forward(self, mean_BD: Tensor) -> Tensor:
        weight = self.conv.weight.to(mean_BD.dtype)  # wide features, whatever the weights are
        # The convolution as a product over windows, which takes a third of its time on a CPU.
        windows = F.pad(mean_BD, (1, 1)).unfold(1, 3, 1)
        return (windows @ weight.flatten()).softmax(dim=1)


def row_sums(x_BDM: Tensor, v_BD: Tensor) -> Tensor:
    """Return X X^T v / M for each image, without the matrix: (B, D) to (B, D).

    With v of ones and features centred before, the row sums of the covariance.
    """
    sums_B1M = v_BD[:, None] @ x_BDM
    return torch.linalg.vecdot(x_BDM, sums_B1M) / x_BDM.shape[2]


def row_sum_noise(mean_BD1: Tensor) -> Tensor:
    """Return the length up to which centred row sums are mere rounding: (B, D, 1) to (B,).

    The norm of the row sums is at most sqrt(D) times the trace.
    """
    return rounding_noise(mean_BD1)[:, 0, 0] * mean_BD1.shape[1] ** 0.5


def adaptive_rate(w_BD: Tensor, rows_BD: Tensor, noise_B: Tensor) -> Tensor:
    """Return rho of a batch, 0-d, from the importance of channels and the row sums.

    Images whose row sums are not longer than `noise_B`, or not finite, are left out of the mean.
    Gradients are the caller's to switch off.
    """
    # Divided by the largest first, so that squares neither overflow, which would look like a cosine
    # of zero and drop everything, nor vanish.
    peak_B1 = rows_BD.abs().amax(dim=1, keepdim=True)
    scaled_BD = rows_BD / peak_B1
    length_B = scaled_BD.norm(dim=1)
    cosine_B = (w_BD * scaled_BD).sum(dim=1) / (w_BD.norm(dim=1) * length_B)
    alive_B = (length_B * peak_B1[:, 0] > noise_B) & cosine_B.isfinite()
    num_alive = alive_B.sum()
    mean = cosine_B.masked_fill(~alive_B, 0.0).sum() / num_alive.clamp(min=1)
    rho = (1.0 - 10.0 / math.log2(w_BD.shape[1]) * mean).clamp(0.0, 1.0)
    return rho.masked_fill(num_alive == 0, 0.0)


def channel_mask(rho: Tensor, batch_size: int, num_channels: int) -> Tensor:
    """Draw a mask per image and channel: 0 with probability rho, else 1 / (1 - rho).

    A rate of 1 gives zeros. `rho` is 0-d and stays on its device.
    """
    draw_BD = torch.rand(batch_size, num_channels, dtype=rho.dtype, device=rho.device)
    keep = 1.0 - rho
    return (draw_BD < keep) / keep.masked_fill(rho >= 1.0, 1.0)


def check_rate(name: str, rate: float) -> None:
    """Raise ValueError unless a rate is a probability."""
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"{name} must be between 0 and 1, got {rate}")
