"""What `python -m workloads.models` says of networks that exist as config only.

A network comes as a mapping: `name`, `model` (a ModelConfig), `image_size`, `in_channels` and
`num_classes`. Nothing is trained or run here: networks are built on the meta device, for their
shapes.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from workloads.config.model import ModelConfig
from workloads.config.validate import validate
from workloads.models.counting import Counts, count
from workloads.models.errors import ModelError
from workloads.models.gcp_net import GCPNet, build_model
from workloads.models.head import GCPHead
from workloads.models.stages import Stage, backbone_stages

Network = Mapping[str, Any]

_LARGER = "give larger ones: --image-size N"

_NOT_POOLING = ("features", "attention", "reduction", "classifier")
"""Parts of `Counts.macs` that are not the pooling's own."""


def count_networks(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer `counts`, one for each of `networks`: parameters, multiply-adds, widths."""
    return {"counts": [_summary(_count(_build(net), net)) for net in request["networks"]]}


def describe_network(request: Network) -> dict[str, Any]:
    """Answer the counts of a network, where its pooling attaches, and its table of stages."""
    model = _build(request)
    counts = _count(model, request)
    rows, _ = backbone_stages(
        model.features, image_size=request["image_size"], in_channels=request["in_channels"]
    )
    features = model.features
    return {
        **_summary(counts),
        "parameters_by_part": dict(counts.parameters),
        "macs_by_part": dict(counts.macs),
        "attach": {
            "after": rows[-1].last_layer,
            "channels": features.out_channels,
            "tokens": features.tokens,
            "prefix_tokens": features.prefix_tokens,
            "shape": counts.map_shape,
        },
        "vector_order": getattr(model.head.pooling, "vector_order", None),
        "stages": [
            *({"part": "backbone", **asdict(row)} for row in rows),
            *({"part": "head", **asdict(row)} for row in _head_stages(model.head, counts)),
        ],
    }


def _config(network: Network) -> ModelConfig:
    return validate(ModelConfig, network["model"], network["name"])


def _build(network: Network) -> GCPNet:
    try:
        with torch.device("meta"):
            return build_model(
                _config(network),
                in_channels=network["in_channels"],
                num_classes=network["num_classes"],
            )
    except ValueError as error:  # options that fit one by one and not together
        raise ModelError(f"{network['name']} cannot be built: {error}") from error


def _count(model: GCPNet, network: Network) -> Counts:
    """Count one network.

    Raises:
        ModelError: The network cannot take images of that size.
    """
    size = network["image_size"]
    try:
        counts = count(model, size, network["in_channels"])
    except (RuntimeError, ValueError) as error:
        why = str(error).strip().split("\n")[0]
        raise ModelError(
            f"{network['name']} cannot take images of {size} pixels: {why}", _LARGER
        ) from error
    if counts.num_positions < _config(network).min_positions:
        raise ModelError(
            f"{network['name']} makes one position of images of {size} pixels, and the covariance "
            "of one is zero",
            _LARGER,
        )
    return counts


def _summary(counts: Counts) -> dict[str, Any]:
    return {
        "parameters": counts.total_parameters,
        "macs": counts.total_macs,
        "layer_macs": counts.layer_macs,
        "positions": counts.num_positions,
        "vector_width": counts.vector_width,
    }


def _head_stages(head: GCPHead, counts: Counts) -> list[Stage]:
    """Return a row for each part of the head that the network has."""
    stages = []
    if head.pooling is not None:
        if _num_parameters(head.reduction):
            shape = (counts.channels, *_positions(counts))
            stages.append(_stage("reduction", head.reduction, shape, counts.macs["reduction"]))
        pooling_macs = sum(macs for part, macs in counts.macs.items() if part not in _NOT_POOLING)
        stages.append(_stage("pooling", head.pooling, (counts.vector_width,), pooling_macs))
    linear = [layer for layer in head.hidden.modules() if isinstance(layer, nn.Linear)]
    if linear:
        macs = sum(layer.weight.numel() for layer in linear)
        stages.append(_stage("hidden", head.hidden, (linear[-1].out_features,), macs))
    for name in ("classifier", "token_classifier"):
        layer = getattr(head, name)
        if layer is not None:
            stages.append(_stage(name, layer, (layer.out_features,), layer.weight.numel()))
    return stages


def _positions(counts: Counts) -> tuple[int, ...]:
    is_map = len(counts.map_shape) == 3
    return counts.map_shape[1:] if is_map else (counts.num_positions,)


def _stage(name: str, module: nn.Module, shape: tuple[int, ...], macs: int) -> Stage:
    return Stage(name, name, shape, _num_parameters(module), macs)


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
