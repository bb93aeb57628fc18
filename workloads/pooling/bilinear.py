"""Bilinear pooling (recipes: `bcnn`)."""

from workloads.pooling.epn import EpnPooling


class BilinearPooling(EpnPooling):
    """Pool features to the signed roots of their second moment, as a vector of length one.

    (B, C, H, W) or (B, N, C) -> X X^T / N (B, C, C), not centred -> all C^2 entries, row by row
    -> sign(v) sqrt(|v| + eps) -> v / |v|. Features of zeros give zero with zero gradient.

    Args:
        in_channels: C.
        eps: Inside the root, where it bounds the derivative at zero by 1 / (2 sqrt(eps)); 1e-8 is
            published.
        vector: Order of the vector, see `workloads.pooling.vectorise`; `full` is published. A
            triangle holds the same numbers in half the width, up to the length: there entries off
            the diagonal count once.

    References:
        Lin, RoyChowdhury, Maji, Bilinear CNN Models for Fine-grained Visual Recognition,
        ICCV 2015.
    """

    def __init__(self, *, in_channels: int, eps: float = 1e-8, vector: str = "full") -> None:
        super().__init__(
            in_channels=in_channels, centred=False, vector=vector, eps=eps, l2="vector"
        )
