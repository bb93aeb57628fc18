"""torchvision's DenseNet as a backbone."""

import torch.nn.functional as F
from torch import Tensor, nn

from workloads.models.backbone import Backbone, fit_input, init_convolutions
from workloads.models.resnet import first_convolution


class DenseNet(Backbone):
    """DenseNet up to its last normalisation and the ReLU after it, untrained.

    (B, in_channels, H, W) -> (B, C, h, w): 7x7 at 224 px, four times the side with the small stem.

    Parameter names and initialisation are torchvision's.

    Args:
        in_channels: Channels of the images.
        stem: `small` has a 3x3 convolution of stride 1 in the place of the 7x7 one and no
            max-pooling, for images of 28 to 64 pixels.

    References:
        Huang, Liu, van der Maaten, Weinberger, Densely Connected Convolutional Networks, CVPR 2017.
    """

    model: str

    def __init__(self, *, in_channels: int = 3, stem: str = "imagenet") -> None:
        from torchvision.models import get_model  # takes seconds: only who builds one pays

        net = get_model(self.model, weights=None, num_classes=1)
        super().__init__(out_channels=net.features.norm5.num_features)
        self.features = net.features
        self.features.conv0 = fit_input(self.features.conv0, in_channels)
        if stem == "small":
            width = self.features.conv0.out_channels
            self.features.conv0 = first_convolution(in_channels, width, small=True)
            init_convolutions(self.features.conv0)
            self.features.pool0 = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.features(images), inplace=True)


class DenseNet121(DenseNet):
    """DenseNet of 121 layers; 1024 channels."""

    model = "densenet121"


class DenseNet161(DenseNet):
    """DenseNet of 161 layers; 2208 channels."""

    model = "densenet161"


class DenseNet169(DenseNet):
    """DenseNet of 169 layers; 1664 channels."""

    model = "densenet169"


class DenseNet201(DenseNet):
    """DenseNet of 201 layers; 1920 channels."""

    model = "densenet201"
