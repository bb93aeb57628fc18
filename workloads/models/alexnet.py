"""AlexNet under torchvision's parameter names, without importing torchvision."""

from torch import Tensor, nn

from workloads.models.backbone import Backbone


class AlexNet(Backbone):
    """AlexNet up to its last max-pooling, untrained; torchvision's names and initialisation.

    (B, in_channels, H, W) -> (B, 256, h, w): 6x6 at 224 px, or 13x13 without the last pooling.

    Built here because torchvision's constructor draws 58 million classifier weights first.

    Args:
        in_channels: Channels of the images.
        last_pool: False drops the last max-pooling, as the GCP papers do.

    References:
        Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014.
    """

    def __init__(self, *, in_channels: int = 3, last_pool: bool = True) -> None:
        super().__init__(out_channels=256)
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, 64, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
        ]
        if last_pool:
            layers.append(nn.MaxPool2d(3, stride=2))
        self.features = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)
