"""torchvision's ShuffleNetV2 as a backbone."""

from torch import Tensor, nn

from workloads.models.backbone import Backbone, fit_input


class ShuffleNetV2(Backbone):
    """ShuffleNetV2 up to its last 1x1 convolution, untrained.

    (B, in_channels, H, W) -> (B, 1024, H / 32, W / 32), rounded up; H / 8 with the small stem. The
    widest network has 2048 channels.

    Parameter names and initialisation are torchvision's.

    Args:
        in_channels: Channels of the images.
        stem: `small` sets the first stride to 1 and leaves the max-pooling out, for images of 28
            to 64 pixels.

    References:
        Ma, Zhang, Zheng, Sun, ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture
        Design, ECCV 2018.
    """

    model: str

    def __init__(self, *, in_channels: int = 3, stem: str = "imagenet") -> None:
        from torchvision.models import get_model  # takes seconds: only who builds one pays

        net = get_model(self.model, weights=None, num_classes=1)
        super().__init__(out_channels=net.conv5[0].out_channels)
        self.conv1, self.maxpool = net.conv1, net.maxpool
        self.stage2, self.stage3, self.stage4 = net.stage2, net.stage3, net.stage4
        self.conv5 = net.conv5
        self.conv1[0] = fit_input(self.conv1[0], in_channels)
        if stem == "small":
            self.conv1[0].stride = (1, 1)
            self.maxpool = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.conv1(images))
        return self.conv5(self.stage4(self.stage3(self.stage2(x))))


class ShuffleNetV2x05(ShuffleNetV2):
    """ShuffleNetV2 of half the width."""

    model = "shufflenet_v2_x0_5"


class ShuffleNetV2x10(ShuffleNetV2):
    """ShuffleNetV2 of the published width."""

    model = "shufflenet_v2_x1_0"


class ShuffleNetV2x15(ShuffleNetV2):
    """ShuffleNetV2 of 1.5 times the width."""

    model = "shufflenet_v2_x1_5"


class ShuffleNetV2x20(ShuffleNetV2):
    """ShuffleNetV2 of twice the width; 2048 channels."""

    model = "shufflenet_v2_x2_0"
