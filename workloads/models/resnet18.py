"""torchvision's ResNet-18 as a backbone."""

from torch import Tensor, nn

from workloads.models.backbone import Backbone, init_convolutions


class ResNet18(Backbone):
    """ResNet-18 without its pooling and classifier, untrained; torchvision's parameter names.

    (B, in_channels, H, W) -> (B, 512, H / 32, W / 32), or H / 16 with `last_stride=1`.

    Args:
        in_channels: Channels of the images.
        last_stride: Stride of the last stage, both of its 3x3 convolution and of its shortcut.
            1 gives 14x14 maps at 224 px, as the GCP papers use.

    References:
        He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016.
    """

    def __init__(self, *, in_channels: int = 3, last_stride: int = 2) -> None:
        from torchvision.models import resnet18  # takes seconds: only who builds one pays

        super().__init__(out_channels=512)
        net = resnet18(weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2 = net.layer1, net.layer2
        self.layer3, self.layer4 = net.layer3, net.layer4
        if in_channels != 3:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            init_convolutions(self.conv1)
        self.layer4[0].conv1.stride = (last_stride, last_stride)
        self.layer4[0].downsample[0].stride = (last_stride, last_stride)

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))
