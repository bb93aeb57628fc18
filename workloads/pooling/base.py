"""What every global pooling is: a map from features to one vector per image."""

from torch import Tensor, nn


class GlobalPooling(nn.Module):
    """Map maps (B, C, H, W) or tokens (B, N, C) to (B, out_features), each image by itself.

    A pooling takes keyword arguments, `in_channels` first; it holds no state across images, so it
    may be used at any batch size, on any number of ranks and at any number of positions.

    Non-finite features come out non-finite: they are never hidden, and never looked for here,
    which would stop a GPU at every step. `workloads.models.gcp_net.find_non_finite_layer` names
    the layer they come from once a loss has shown them.

    Attributes:
        in_channels: C.
        out_features: Width of the vector.
        vector_order: Order of a matrix's entries in the vector (`workloads.pooling.vectorise`),
            None where the vector is no matrix. Part of every checkpoint: the classifier's columns
            follow it.
    """

    in_channels: int
    out_features: int
    vector_order: str | None = None

    def __init__(self, *, in_channels: int, out_features: int) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}")
        self.in_channels = in_channels
        self.out_features = out_features

    def forward(self, x: Tensor) -> Tensor:
        """Pool x: (B, C, H, W) or (B, N, C) to (B, out_features), in the type of x."""
        raise NotImplementedError

    def macs(self, num_positions: int) -> dict[str, int]:
        """Return the multiply-adds of one image by part, as the papers count them.

        The textbook count of the formula (`covariance`, `normalisation`, ...), for comparing
        with published figures; what is really computed may be less.
        """
        return {}

    def observables(self) -> dict[str, Tensor]:
        """Return scalars of the last forward pass in training mode that are worth a metric.

        They stay on their device, without a gradient; empty before the first such pass.
        """
        return {}

    def positions_last(self, x: Tensor) -> Tensor:
        """Return features as (B, C, N): maps flattened, tokens transposed.

        Raises:
            ValueError: x is neither maps nor tokens of `in_channels` channels.
        """
        if x.dim() == 4 and x.shape[1] == self.in_channels:
            return x.flatten(2)
        if x.dim() == 3 and x.shape[2] == self.in_channels:
            return x.transpose(1, 2)
        c = self.in_channels
        raise ValueError(
            f"{type(self).__name__} pools maps (B, {c}, H, W) or tokens (B, N, {c}), got "
            f"{tuple(x.shape)}"
        )

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels}, out_features={self.out_features}"
