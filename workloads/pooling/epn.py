"""Element-wise power normalisation: signed square root, then a length of one (recipes: `epn`).

Shape letters: B batch, D channels, M positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.pooling.functional import widen
from workloads.pooling.guarded import guarded_covariance
from workloads.pooling.second_order import SecondOrderPooling

L2 = ("vector", "columns", "none")


class ElementwisePower(nn.Module):
    """Map matrices (..., D, E) to sign(a) sqrt(|a| + eps), then to a length of one.

    Zeros stay zero, with zero gradient: the root's derivative is bounded by 1 / (2 sqrt(eps)), and
    a matrix (or column) of zeros is not divided.

    Args:
        eps: Inside the root.
        l2: What is brought to length one: the whole matrix as one `vector`, its `columns` each by
            itself, or `none`.

    Raises:
        ValueError: An unknown `l2`, or `eps` is not positive.
    """

    def __init__(self, *, eps: float = 1e-8, l2: str = "vector") -> None:
        super().__init__()
        if l2 not in L2:
            raise ValueError(f"l2 must be one of {', '.join(L2)}, got {l2!r}")
        if eps <= 0:
            raise ValueError(f"eps must be above 0, it bounds the root's derivative; got {eps}")
        self.eps = eps
        self.l2 = l2

    def forward(self, matrix: Tensor) -> Tensor:
        root = matrix.sign() * (matrix.abs() + self.eps).sqrt()
        if self.l2 == "columns":
            return F.normalize(root, dim=-2)
        if self.l2 == "vector":
            return F.normalize(root.flatten(-2), dim=-1).view_as(root)
        return root

    def extra_repr(self) -> str:
        return f"eps={self.eps}, l2={self.l2}"


class EpnPooling(SecondOrderPooling):
    """Pool features to sign(v) sqrt(|v| + eps) of their covariance's entries, of length one.

    (B, C, H, W) or (B, N, C) -> Sigma (B, C, C) -> element by element -> (B, C (C + 1) / 2). One
    position, or a map without variation, gives zero with zero gradient.

    Args:
        in_channels: C.
        centred: Subtract each channel's mean over the positions; False pools the second moment.
        vector: Order of the vector, see `workloads.pooling.vectorise`.
        eps: Inside the root, where it bounds the derivative at zero by 1 / (2 sqrt(eps)); 1e-8 is
            published.
        l2: What is brought to length one: the `vector`, as in B-CNN; each of the matrix's
            `columns` before it is made a vector, as in the second-order transformers; or `none`.

    References:
        Lin, RoyChowdhury, Maji, Bilinear CNN Models for Fine-grained Visual Recognition,
        ICCV 2015.
        Xie et al., SoT: Delving Deeper into Classification Head for Transformer, 2021.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        centred: bool = True,
        vector: str = "upper_rows",
        eps: float = 1e-8,
        l2: str = "vector",
    ) -> None:
        super().__init__(in_channels=in_channels, centred=centred, vector=vector)
        self.eps = eps
        self.l2 = l2
        # The vector's length is taken in `forward`: a triangle is shorter than its matrix.
        self.normaliser = ElementwisePower(eps=eps, l2="none" if l2 == "vector" else l2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(device_type=x.device.type, enabled=False):
            z_BT = self.vectoriser(self.matrix(widen(self.positions_last(x))))
            return (F.normalize(z_BT) if self.l2 == "vector" else z_BT).to(x.dtype)

    def matrix(self, x_BDM: Tensor) -> Tensor:
        return self.normalise(guarded_covariance(x_BDM, centred=self.centred))

    def normalise(self, cov_BDD: Tensor) -> Tensor:
        return self.normaliser(cov_BDD)

    def macs(self, num_positions: int) -> dict[str, int]:
        """Count the covariance and one multiply-add per entry for the length."""
        length = {"vector": self.out_features, "columns": self.in_channels**2}
        return super().macs(num_positions) | {"normalisation": length.get(self.l2, 0)}
