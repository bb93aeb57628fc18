"""torchvision's Inception-v3 as a backbone."""

from torch import Tensor

from workloads.models.backbone import Backbone, fit_input

LEFT_OUT = {"AuxLogits", "avgpool", "dropout", "fc"}
"""Layers of torchvision's network that belong to its classifiers."""


class InceptionV3(Backbone):
    """Inception-v3 up to Mixed_7c, untrained.

    (B, in_channels, H, W) -> (B, 2048, h, w): 8x8 at 299 px; at least 75 px.

    Parameter names and initialisation are torchvision's.

    Args:
        in_channels: Channels of the images.

    References:
        Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, Rethinking the Inception Architecture for Computer
        Vision, CVPR 2016.

    Deviation:
        No auxiliary classifier, and images are normalised as for every other network: torchvision's
        published weights were trained on another scale, which its `transform_input` restores.
    """

    def __init__(self, *, in_channels: int = 3) -> None:
        from torchvision.models import inception_v3  # takes seconds: only who builds one pays

        super().__init__(out_channels=2048)
        net = inception_v3(
            weights=None, num_classes=1, aux_logits=False, transform_input=False, init_weights=True
        )
        for name, layer in net.named_children():  # in the order in which images pass them
            if name not in LEFT_OUT:
                self.add_module(name, layer)
        first = self.Conv2d_1a_3x3
        first.conv = fit_input(first.conv, in_channels)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for layer in self.children():
            x = layer(x)
        return x
