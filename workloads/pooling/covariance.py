"""The plain covariance, not normalised (recipes: `cov`)."""

from torch import Tensor

from workloads.pooling.second_order import SecondOrderPooling


class CovariancePooling(SecondOrderPooling):
    """Pool features to their covariance: z = vec((1/N) (X - mu 1^T) (X - mu 1^T)^T).

    (B, C, H, W) or (B, N, C) -> Sigma (B, C, C), divisor N -> (B, C (C + 1) / 2), or (B, C * C)
    with the `full` order. The baseline that shows what a normalisation is worth, and what DropCov
    computes in evaluation.

    Args:
        in_channels: C.
        centred: Subtract each channel's mean over the positions; False pools the second moment.
        vector: Order of the vector, see `workloads.pooling.vectorise`.

    References:
        Li et al., Is Second-order Information Helpful for Large-scale Visual Recognition?,
        ICCV 2017.
    """

    def normalise(self, cov_BDD: Tensor) -> Tensor:
        return cov_BDD
