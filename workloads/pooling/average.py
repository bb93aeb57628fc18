"""Global average pooling, the first-order baseline (recipes call it `gap`)."""

from torch import Tensor

from workloads.pooling.base import GlobalPooling


class AveragePooling(GlobalPooling):
    """Mean over the positions: (B, C, H, W) to (B, C).

    References:
        Lin, Chen, Yan, Network In Network, ICLR 2014.
    """

    def __init__(self, *, in_channels: int) -> None:
        super().__init__(in_channels=in_channels, out_features=in_channels)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))
