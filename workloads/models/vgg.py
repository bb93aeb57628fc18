"""VGG-16 under torchvision's parameter names, without importing torchvision."""

from torch import Tensor, nn

from workloads.models.backbone import Backbone, init_convolutions

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Widths of the 3x3 convolutions between the max-poolings ("configuration D")."""


class VGG16(Backbone):
    """VGG-16 up to its last max-pooling, untrained; torchvision's parameter names.

    (B, in_channels, H, W) -> (B, 512, H // 32, W // 32), or H // 16 without the last pooling.

    Built here because torchvision's constructor draws 120 million classifier weights first.

    Args:
        in_channels: Channels of the images.
        last_pool: False drops the last max-pooling: 14x14 maps at 224 px, as the GCP papers use.

    References:
        Simonyan, Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition,
        ICLR 2015.
    """

    batch_norm = False

    def __init__(self, *, in_channels: int = 3, last_pool: bool = True) -> None:
        super().__init__(out_channels=512)
        layers: list[nn.Module] = []
        for widths in STAGES:
            for width in widths:
                layers.append(nn.Conv2d(in_channels, width, 3, padding=1))
                if self.batch_norm:
                    layers.append(nn.BatchNorm2d(width))
                layers.append(nn.ReLU(inplace=True))
                in_channels = width
            layers.append(nn.MaxPool2d(2, stride=2))
        self.features = nn.Sequential(*(layers if last_pool else layers[:-1]))
        init_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)


class VGG16BN(VGG16):
    """VGG-16 with batch normalisation after every convolution."""

    batch_norm = True
