"""torchvision's MobileNetV2 as a backbone."""

from torch import Tensor

from workloads.models.backbone import Backbone, fit_input

SMALL_STAGES = [
    [1, 16, 1, 1],
    [6, 24, 2, 1],  # of stride 2 in the published network
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]
"""Expansion, channels, blocks and first stride of every stage, for small images."""


class MobileNetV2(Backbone):
    """MobileNetV2 up to its last 1x1 convolution, untrained.

    (B, in_channels, H, W) -> (B, 1280, H / 32, W / 32), rounded up; H / 8 with the small stem.

    Parameter names and initialisation are torchvision's.

    Args:
        in_channels: Channels of the images.
        width_mult: Multiplies every width; that of the last convolution only above 1.
        stem: `small` sets the first two strides to 1, for images of 28 to 64 pixels.

    References:
        Sandler, Howard, Zhu, Zhmoginov, Chen, MobileNetV2: Inverted Residuals and Linear
        Bottlenecks, CVPR 2018.
    """

    def __init__(
        self, *, in_channels: int = 3, width_mult: float = 1.0, stem: str = "imagenet"
    ) -> None:
        from torchvision.models import mobilenet_v2  # takes seconds: only who builds one pays

        stages = SMALL_STAGES if stem == "small" else None
        net = mobilenet_v2(
            weights=None, num_classes=1, width_mult=width_mult, inverted_residual_setting=stages
        )
        super().__init__(out_channels=net.last_channel)
        self.features = net.features
        self.features[0][0] = fit_input(self.features[0][0], in_channels)
        if stem == "small":
            self.features[0][0].stride = (1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)
