"""Count a network's weights and its multiply-adds, as the papers do."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from workloads.models.gcp_net import GCPNet
from workloads.models.shapes import meta_call

LAYERS = ("features", "reduction", "projections", "classifier")
"""The parts of `Counts.macs` that are convolutions and Linear layers."""

LAYER_OPS = ("convolution", "addmm", "mm")
"""What convolutions and Linear layers run as; all other products are attention's."""


@dataclass(frozen=True)
class Counts:
    """What a network has, and what one image costs.

    Attributes:
        parameters: Trainable weights by part: `features`, `reduction`, `pooling`, `classifier`. The
            last has the hidden layers and the class token's classifier with it.
        macs: Multiply-adds by part. `features`, `reduction` and `classifier` are convolutions and
            Linear layers without their biases, `attention` the products of queries, keys and
            values; the others are the pooling's, by the textbook (`GlobalPooling.macs`).
        map_shape: (C, h, w) of the backbone's maps, or (P + N, C) of its tokens.
        num_positions: Positions that are pooled; 0 where only the class token is used.
        channels: Channels that are pooled.
        vector_width: Width of the pooled vector.
    """

    parameters: Mapping[str, int]
    macs: Mapping[str, int]
    map_shape: tuple[int, ...]
    num_positions: int
    channels: int
    vector_width: int

    @property
    def total_parameters(self) -> int:
        """All trainable weights."""
        return sum(self.parameters.values())

    @property
    def layer_macs(self) -> int:
        """Multiply-adds of convolutions and Linear layers: the "FLOPs" of published tables."""
        return sum(self.macs.get(part, 0) for part in LAYERS)

    @property
    def total_macs(self) -> int:
        """Multiply-adds of everything."""
        return sum(self.macs.values())


def count(model: GCPNet, image_size: int, in_channels: int = 3) -> Counts:
    """Count for one square image of `image_size` pixels, without computing anything.

    The model stays as it is; built under `torch.device("meta")` it takes no memory.

    Raises:
        RuntimeError: The image is too small for the network.
    """
    head = model.head
    images = torch.empty(1, in_channels, image_size, image_size, device="meta")
    features, products = _run(model.features, images)
    reduction = _weights(head.reduction)
    pooling = _weights(head.pooling)
    parameters = {
        "features": _weights(model.features),
        "reduction": reduction,
        "pooling": pooling,
        "classifier": _weights(head) - reduction - pooling,
    }
    macs = {"features": products["layers"], "attention": products["attention"]}
    num_positions = channels = vector_width = 0
    if head.pooling is not None:
        maps, products = _run(head.reduction, head.maps(features))
        num_positions, channels = maps[0, 0].numel(), maps.shape[1]
        vector_width = head.pooling.out_features
        macs |= {"reduction": products["layers"], **head.pooling.macs(num_positions)}
    macs["classifier"] = sum(
        weight.numel()
        for layers in (head.hidden, head.classifier, head.token_classifier)
        if layers is not None
        for weight in layers.parameters()
        if weight.dim() == 2
    )
    return Counts(
        parameters=parameters,
        macs={part: number for part, number in macs.items() if number},
        map_shape=tuple(features.shape[1:]),
        num_positions=num_positions,
        channels=channels,
        vector_width=vector_width,
    )


def _run(module: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, int]]:
    """Return the result's shape and the multiply-adds of one image: of layers, and attention."""
    with FlopCounterMode(display=False) as counter:
        result = meta_call(module, x)
    products = {"layers": 0, "attention": 0}
    for operation, flops in counter.get_flop_counts().get("Global", {}).items():
        is_layer = str(operation).removeprefix("aten.") in LAYER_OPS
        products["layers" if is_layer else "attention"] += flops // 2
    return result, products


def _weights(module: nn.Module | None) -> int:
    if module is None:
        return 0
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
