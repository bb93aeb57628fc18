"""What every global pooling is: a map from features to one vector per image."""

from torch import Tensor, nn


class GlobalPooling(nn.Module):
    """Map (B, C, H, W) to (B, out_features), each image by itself.

    A pooling takes keyword arguments, `in_channels` first; it holds no state across images, so it
    may be used at any batch size, on any number of ranks and at any H and W.

    Non-finite features come out non-finite: they are never hidden, and never looked for here,
    which would stop a GPU at every step. `workloads.models.gcp_net.find_non_finite_layer` names
    the layer they come from once a loss has shown them.

    Attributes:
        in_channels: C.
        out_features: Width of the vector.
    """

    in_channels: int
    out_features: int

    def __init__(self, *, in_channels: int, out_features: int) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}")
        self.in_channels = in_channels
        self.out_features = out_features

    def forward(self, x: Tensor) -> Tensor:
        """Pool x: (B, C, H, W) to (B, out_features), in the type of x."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels}, out_features={self.out_features}"
