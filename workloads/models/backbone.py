"""What every backbone is: a map from images to features."""

from torch import Tensor, nn


class Backbone(nn.Module):
    """Map images (B, in_channels, H, W) to features.

    Features are maps (B, out_channels, h, w), or tokens (B, prefix_tokens + N, out_channels) where
    `tokens` is true.

    A backbone takes keyword arguments, has no pooling and no classifier, and draws its weights
    from torch's global generator only: the caller's seed decides them.

    Attributes:
        out_channels: Channels of the features.
        tokens: Whether the features are tokens.
        prefix_tokens: Tokens before the visual ones: 1 with a class token, else 0.
    """

    out_channels: int
    tokens: bool
    prefix_tokens: int

    def __init__(self, *, out_channels: int, tokens: bool = False, prefix_tokens: int = 0) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.tokens = tokens
        self.prefix_tokens = prefix_tokens

    def forward(self, images: Tensor) -> Tensor:
        """Map images to features."""
        raise NotImplementedError


def init_convolutions(module: nn.Module) -> None:
    """Draw every convolution from Kaiming's normal (fan_out, ReLU); set BN to one and zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def fit_input(convolution: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    """Return a first convolution for images of `in_channels` channels.

    The given one if it fits; else a new one of the same shape, drawn from Kaiming's normal.
    """
    if convolution.in_channels == in_channels:
        return convolution
    fitted = nn.Conv2d(
        in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        convolution.padding,
        bias=convolution.bias is not None,
    )
    init_convolutions(fitted)
    return fitted
