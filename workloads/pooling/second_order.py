"""What every pooling of a covariance matrix shares: statistic, normaliser, vectoriser."""

import torch
from torch import Tensor

from workloads.pooling.base import GlobalPooling
from workloads.pooling.functional import covariance, widen
from workloads.pooling.vectorise import Vectoriser


class SecondOrderPooling(GlobalPooling):
    """Features -> D x D statistic -> normaliser -> vector.

    A subclass gives `normalise`, or all of `matrix` where it knows a shorter way. Everything
    runs in float32 or wider, whatever autocast says, and the vector is cast back.

    Args:
        in_channels: D.
        centred: Subtract each channel's mean over the positions; False pools the second moment.
        vector: Order of the vector, see `workloads.pooling.vectorise`.
    """

    def __init__(
        self, *, in_channels: int, centred: bool = True, vector: str = "upper_rows"
    ) -> None:
        vectoriser = Vectoriser(in_channels, vector)
        super().__init__(in_channels=in_channels, out_features=vectoriser.out_features)
        self.centred = centred
        self.vectoriser = vectoriser
        self.vector_order = vector

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(device_type=x.device.type, enabled=False):
            x_BDM = widen(self.positions_last(x))
            return self.vectoriser(self.matrix(x_BDM)).to(x.dtype)

    def matrix(self, x_BDM: Tensor) -> Tensor:
        """Return the normalised matrix of wide features: (B, D, M) to (B, D, D)."""
        return self.normalise(covariance(x_BDM, centred=self.centred))

    def normalise(self, cov_BDD: Tensor) -> Tensor:
        """Normalise symmetric positive semidefinite matrices: (B, D, D) to (B, D, D)."""
        raise NotImplementedError

    def macs(self, num_positions: int) -> dict[str, int]:
        return {"covariance": self.in_channels**2 * num_positions}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, centred={self.centred}"
