"""Any network of timm as a backbone."""

from math import isqrt

import torch
from torch import Tensor, nn

from workloads.models.backbone import Backbone
from workloads.models.errors import ModelError
from workloads.models.shapes import meta_call, unused_parameters
from workloads.models.torchvision_net import refuse_unknown


class TimmNet(Backbone):
    """A network of timm up to its pooling (`forward_features`), untrained.

    (B, in_channels, H, W) -> maps (B, C, h, w), also where timm gives them as (B, h, w, C), or
    tokens (B, P + N, C). Parameters have timm's names under `net.`. Parts that only timm's own
    head uses are left out; other weights that do not reach the features are not trained.

    Args:
        in_channels: Channels of the images.
        model: Name for `timm.create_model`.
        image_size: Pixels per side for networks made for one size, as vision transformers are; None
            is the network's own.

    Raises:
        ModelError: timm is not installed or has no such network, the network takes no
            `image_size`, or its features are neither maps nor tokens.
    """

    def __init__(self, *, in_channels: int = 3, model: str, image_size: int | None = None) -> None:
        net = _create(model, in_channels, image_size)
        super().__init__(out_channels=0)  # known below, from the features
        self.net = net
        self.channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        side = image_size or net.pretrained_cfg["input_size"][1]
        images = torch.empty(1, in_channels, side, side, device="meta")
        features = meta_call(self, images)
        shape = tuple(features.shape) if isinstance(features, Tensor) else ()
        if len(shape) == 3:
            self.tokens = True
            self.prefix_tokens = count_prefix_tokens(net, shape[1])
        elif len(shape) != 4:
            raise ModelError(
                f"{model} of timm gives no maps and no tokens, but {type(features).__name__}s",
                "choose another network",
            )
        self.out_channels = shape[2] if self.tokens else shape[1]
        self._leave_out_unused(images)

    def forward(self, images: Tensor) -> Tensor:
        features = self.net.forward_features(images)
        return features.permute(0, 3, 1, 2) if self.channels_last else features

    def _leave_out_unused(self, images: Tensor) -> None:
        """Drop the layers, and freeze the single weights, that no gradient would reach."""
        unused = set(unused_parameters(self, images))
        for name, layer in [*self.net.named_children()]:
            weights = {f"net.{name}.{key}" for key, _ in layer.named_parameters()}
            if weights and weights <= unused:
                setattr(self.net, name, nn.Identity())
        for name, weight in self.named_parameters():
            if name in unused:
                weight.requires_grad_(False)


def _create(model: str, in_channels: int, image_size: int | None) -> nn.Module:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModelError(
            "the backbone timm needs the package timm, which is not installed here",
            "install it where the job runs: pip install 'gcpctl[timm]'",
        ) from error
    refuse_unknown("network of timm", model.partition(".")[0], timm.list_models())
    options = {} if image_size is None else {"img_size": image_size}
    try:
        return timm.create_model(
            model, pretrained=False, num_classes=0, in_chans=in_channels, **options
        )
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        raise ModelError(
            f"{model} of timm takes images of any size and no image_size",
            "leave image_size out",
        ) from error


def count_prefix_tokens(net: nn.Module, num_tokens: int) -> int:
    """Return how many tokens are no patches: timm's word, else what is over a square."""
    named = getattr(net, "num_prefix_tokens", None)
    return num_tokens - isqrt(num_tokens) ** 2 if named is None else named
