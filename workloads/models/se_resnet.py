"""SE-ResNet-50: a ResNet whose blocks weight their channels."""

from torch import Tensor, nn

from workloads.models.backbone import init_convolutions
from workloads.models.resnet import ResNet50


class SEResNet50(ResNet50):
    """ResNet-50 with squeeze-and-excitation; the names of timm's `seresnet50` in `standard`.

    Strides and stems are the ResNet's: see `workloads.models.resnet`.

    Args:
        in_channels: Channels of the images.
        last_stride: Stride of the last stage.
        variant: `standard` weights the channels in every block, with hidden layers of 1/16 of
            their width. `seed` does so only in the last block of stages 3 and 4, with 1/4, and its
            stem has three 3x3 convolutions of 32, 32 and 64 channels in the place of the first one.
        stem: `small` sets the first stride to 1 and leaves the max-pooling out.

    References:
        Hu, Shen, Sun, Squeeze-and-Excitation Networks, CVPR 2018.
        Wang, Zhang, Gao, Xie, Li, Hu, Towards a Deeper Understanding of Global Covariance Pooling
        in Deep Learning: An Optimization Perspective, TPAMI 2023, for `seed`.

    Deviation:
        `seed` strides in the 3x3 convolution as `standard` does.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        last_stride: int = 2,
        variant: str = "standard",
        stem: str = "imagenet",
    ) -> None:
        super().__init__(in_channels=in_channels, last_stride=last_stride, stem=stem)
        if variant == "standard":
            blocks = [*self.layer1, *self.layer2, *self.layer3, *self.layer4]
        else:
            blocks = [self.layer3[-1], self.layer4[-1]]
            self.conv1 = _three_convolutions(in_channels, stride=1 if stem == "small" else 2)
            init_convolutions(self.conv1)
        for block in blocks:
            block.se = SqueezeExcitation(
                block.bn3.num_features, reduction=16 if variant == "standard" else 4
            )
            init_convolutions(block.se)


class SqueezeExcitation(nn.Module):
    """Weight channels by a number in (0, 1) that their means decide: (B, C, H, W) to the same.

    Args:
        channels: C.
        reduction: How many times narrower than C the hidden layer is.
    """

    def __init__(self, channels: int, *, reduction: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * self.fc2(self.relu(self.fc1(mean))).sigmoid()


def _three_convolutions(in_channels: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, 32, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
    )
