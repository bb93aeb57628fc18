"""The head of a GCP network: reduction, pooling, classifier."""

from torch import Tensor, nn

from workloads.models.backbone import init_convolutions
from workloads.pooling.base import GlobalPooling


class GCPHead(nn.Module):
    """Map features (B, in_channels, h, w) to logits (B, num_classes).

    1x1 convolution without bias -> BN -> ReLU -> pooling -> one Linear. Nothing stands between
    the pooled vector and the Linear: no BN, no dropout, no L2.

    Args:
        in_channels: Channels of the features.
        num_classes: Width of the logits.
        pooling: Built for `reduced_channels`, or for `in_channels` without a reduction; it says
            how wide its vector is.
        reduced_channels: Channels after the reduction; None leaves the reduction out.

    References:
        Li et al., Is Second-order Information Helpful for Large-scale Visual Recognition?,
        ICCV 2017, for the place and order of the layers.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        pooling: GlobalPooling,
        reduced_channels: int | None = 32,
    ) -> None:
        super().__init__()
        pooled = in_channels if reduced_channels is None else reduced_channels
        if pooling.in_channels != pooled:
            raise ValueError(f"the pooling takes {pooling.in_channels} channels, not {pooled}")
        self.reduction: nn.Module = nn.Identity()
        if reduced_channels is not None:
            self.reduction = nn.Sequential(
                nn.Conv2d(in_channels, reduced_channels, 1, bias=False),
                nn.BatchNorm2d(reduced_channels),
                nn.ReLU(inplace=True),
            )
            init_convolutions(self.reduction)
        self.pooling = pooling
        self.classifier = nn.Linear(pooling.out_features, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.classifier(self.pooling(self.reduction(features)))
