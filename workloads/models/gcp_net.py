"""A GCP network: features, then head."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from workloads.config.model import ModelConfig
from workloads.models.backbone import Backbone
from workloads.models.backbones import BACKBONES
from workloads.models.head import GCPHead
from workloads.pooling.registry import POOLINGS


class GCPNet(nn.Module):
    """Map images (B, in_channels, H, W) to logits (B, num_classes).

    Attributes:
        takes_features: What it is given are its backbone's features instead of images.
    """

    takes_features: bool = False

    def __init__(self, features: Backbone, head: GCPHead) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images if self.takes_features else self.features(images))


def build_model(config: ModelConfig, *, in_channels: int, num_classes: int) -> GCPNet:
    """Build an untrained network; its weights depend on torch's global generator alone."""
    backbone, head = config.backbone, config.head
    features = BACKBONES[backbone.name](
        in_channels=in_channels, **backbone.model_dump(exclude={"name"})
    )
    width = features.out_channels if head.reduced_channels is None else head.reduced_channels
    pooling = head.pooling
    options = head.model_dump(exclude={"pooling"})
    return GCPNet(
        features,
        GCPHead(
            in_channels=features.out_channels,
            num_classes=num_classes,
            pooling=POOLINGS[pooling.name](
                in_channels=width, **pooling.model_dump(exclude={"name"})
            ),
            prefix_tokens=features.prefix_tokens,
            tokens=features.tokens,
            **options,
        ),
    )


@torch.no_grad()
def find_non_finite_layer(model: nn.Module, images: Tensor) -> str | None:
    """Name the first layer that turns finite numbers into infinity or NaN, or return None.

    For the moment a loss turns out not to be finite: it runs a copy of the model once, so that
    training itself never has to wait for such a check. "the images" and "the weights of X" are
    answers too.
    """
    if not bool(images.isfinite().all()):
        return "the images"
    # In training, running statistics are results: a bad step has spoilt them already.
    read = [] if model.training else model.named_buffers()
    for name, value in [*model.named_parameters(), *read]:
        if not bool(value.isfinite().all()):
            return f"the weights of {name}"
    found: list[str] = []
    probe = copy.deepcopy(model)
    for name, layer in probe.named_modules():
        if next(layer.children(), None) is None:
            layer.register_forward_hook(_recorder(name, found))
    probe(images)
    return found[0] if found else None


def _recorder(name: str, found: list[str]) -> Callable[[nn.Module, object, object], None]:
    def record(_layer: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and not bool(output.isfinite().all()):
            found.append(name)

    return record
