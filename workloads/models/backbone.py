"""What every backbone is: a map from images to features."""

from torch import Tensor, nn


class Backbone(nn.Module):
    """Map images (B, in_channels, H, W) to features (B, out_channels, h, w).

    A backbone takes keyword arguments, has no pooling and no classifier, and draws its weights
    from torch's global generator only: the caller's seed decides them.

    Attributes:
        out_channels: Channels of the features.
    """

    out_channels: int

    def __init__(self, *, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> Tensor:
        """Map images to features."""
        raise NotImplementedError


def init_convolutions(module: nn.Module) -> None:
    """Draw every convolution from Kaiming's normal (fan_out, ReLU); set BN to one and zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
