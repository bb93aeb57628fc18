"""Global average pooling, the first-order baseline (recipes call it `gap`)."""

import torch.nn.functional as F
from torch import Tensor

from workloads.pooling.base import GlobalPooling


class AveragePooling(GlobalPooling):
    """Mean over the positions: (B, C, H, W) or (B, N, C) to (B, C * grid * grid).

    Args:
        in_channels: C.
        grid: Cells per side that are averaged apart, channel by channel; 1 is global. VGG and
            AlexNet feed 7 and 6 cells a side to their fully connected layers. Maps only.

    References:
        Lin, Chen, Yan, Network In Network, ICLR 2014.
    """

    def __init__(self, *, in_channels: int, grid: int = 1) -> None:
        super().__init__(in_channels=in_channels, out_features=in_channels * grid * grid)
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        if self.grid == 1:
            return self.positions_last(x).mean(dim=2)
        if x.dim() != 4:
            raise ValueError(f"grid {self.grid} divides maps (B, C, H, W), got {tuple(x.shape)}")
        return F.adaptive_avg_pool2d(x, self.grid).flatten(1)
