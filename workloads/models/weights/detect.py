"""Tell a network's config from the names and shapes of its weights.

Shape letters: F inputs of the first Linear, D channels that are pooled.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from workloads.models.backbone import Backbone
from workloads.models.backbones import BACKBONES
from workloads.models.weights.errors import WeightsError
from workloads.models.weights.layouts import WRAPPED_RESNET, Layout

Shapes = Mapping[str, tuple[int, ...]]

_RESNETS = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
_SHUFFLENETS = {24: "x0_5", 58: "x1_0", 88: "x1_5", 122: "x2_0"}
"""By half the channels of the first stage."""
_DENSENETS = {
    (6, 12, 24, 16): "densenet121",
    (6, 12, 36, 24): "densenet161",
    (6, 12, 32, 32): "densenet169",
    (6, 12, 48, 32): "densenet201",
}
_DEITS = {192: "deit_tiny", 384: "deit_small", 768: "deit_base"}
_GRIDS = (7, 6)
"""Cells per side before the fully connected layers of VGG and AlexNet."""


@dataclass
class Found:
    """What the weights tell.

    Attributes:
        model: A document for `ModelConfig`; without `backbone` or without `head.pooling` where
            the weights do not tell.
        assumed: What the weights cannot tell and was taken from the layout, in sentences.
    """

    model: dict[str, Any]
    in_channels: int
    num_classes: int
    assumed: list[str] = field(default_factory=list)


def detect(shapes: Shapes, layout: Layout, arch: str | None = None) -> Found:
    """Describe the network that weights of these shapes (under their names here) belong to.

    Args:
        shapes: Name here -> shape.
        layout: What the file's own names are.
        arch: What a training checkpoint calls its network, if it says.

    Raises:
        WeightsError: There is no classifier or no convolution among them, or a second token.
    """
    if "features.dist_token" in shapes:
        raise WeightsError(
            "the network has a distillation token, which the networks here have not",
            "convert the DeiT that was trained without distillation",
        )
    backbone = find_backbone(shapes)
    network = None if backbone is None else _build(backbone)
    found = Found({}, _in_channels(shapes, network), _num_classes(shapes))
    out_channels = None if network is None else network.out_channels
    head = _find_head(shapes, out_channels, layout, found)
    if backbone is not None:
        _assume_strides(backbone, head, layout, arch, found)
        found.model["backbone"] = backbone
    found.model["head"] = head
    return found


def find_backbone(shapes: Shapes) -> dict[str, Any] | None:
    """Return the config document of the backbone, or None if none has these weights."""
    for finder in _FINDERS:
        if (backbone := finder(shapes)) is not None:
            return backbone
    return None


def hidden_layers(shapes: Shapes) -> list[int]:
    """Return the places of the hidden Linear layers, ascending."""
    prefix = "head.hidden."
    return sorted({int(name.split(".")[2]) for name in shapes if name.startswith(prefix)})


# --- backbones -----------------------------------------------------------------------------------


def _resnet(shapes: Shapes) -> dict[str, Any] | None:
    if "features.layer1.0.conv1.weight" not in shapes:
        return None
    depths = tuple(_count(shapes, f"features.layer{stage}.") for stage in (1, 2, 3, 4))
    name = _RESNETS.get(("features.layer1.0.conv3.weight" in shapes, depths))
    if name is None or any(".se." in key for key in shapes):
        return None
    stem = shapes.get("features.conv1.weight", ())
    return {"name": name, "stem": "small" if stem[2:] == (3, 3) else "imagenet"}


def _se_resnet(shapes: Shapes) -> dict[str, Any] | None:
    if "features.layer4.2.se.fc1.weight" not in shapes:
        return None
    variant = "standard" if "features.layer1.0.se.fc1.weight" in shapes else "seed"
    return {"name": "se_resnet50", "variant": variant, "stem": "imagenet"}


def _small_resnet(shapes: Shapes) -> dict[str, Any] | None:
    stem = shapes.get("features.stem.0.weight")
    stages = _count(shapes, "features.stages.")
    if stem is None or not stages:
        return None
    blocks = [_count(shapes, f"features.stages.{stage}.") for stage in range(stages)]
    return {"name": "small_resnet", "width": stem[0], "blocks": blocks}


def _mobilenet_v2(shapes: Shapes) -> dict[str, Any] | None:
    first = shapes.get("features.features.0.0.weight")
    if first is None or "features.features.1.conv.0.0.weight" not in shapes:
        return None
    return {"name": "mobilenet_v2", "width_mult": first[0] / 32, "stem": "imagenet"}


def _shufflenet_v2(shapes: Shapes) -> dict[str, Any] | None:
    branch = shapes.get("features.stage2.0.branch1.2.weight")
    if branch is None or branch[0] not in _SHUFFLENETS:
        return None
    return {"name": f"shufflenet_v2_{_SHUFFLENETS[branch[0]]}", "stem": "imagenet"}


def _vgg_or_alexnet(shapes: Shapes) -> dict[str, Any] | None:
    names = [f"features.features.{i}.weight" for i in range(44)]
    convolutions = [shapes[name] for name in names if len(shapes.get(name, ())) == 4]
    if len(convolutions) == 5 and convolutions[0][2:] == (11, 11):
        return {"name": "alexnet"}
    if len(convolutions) == 13 and convolutions[0][2:] == (3, 3):
        norm = "features.features.1.running_mean" in shapes
        return {"name": "vgg16_bn" if norm else "vgg16"}
    return None


def _densenet(shapes: Shapes) -> dict[str, Any] | None:
    layers = [f"features.features.denseblock{block}.denselayer" for block in (1, 2, 3, 4)]
    name = _DENSENETS.get(tuple(_count(shapes, prefix) for prefix in layers))
    return None if name is None else {"name": name, "stem": "imagenet"}


def _inception(shapes: Shapes) -> dict[str, Any] | None:
    there = "features.Mixed_7c.branch1x1.conv.weight" in shapes
    return {"name": "inception_v3"} if there else None


def _deit(shapes: Shapes) -> dict[str, Any] | None:
    positions, patches = (
        shapes.get("features.pos_embed"),
        shapes.get("features.patch_embed.proj.weight"),
    )
    if positions is None or patches is None or "features.cls_token" not in shapes:
        return None
    name = _DEITS.get(positions[2])
    side = math.isqrt(positions[1] - 1)
    if name is None or side * side != positions[1] - 1:
        return None
    return {"name": name, "image_size": side * patches[2], "patch_size": patches[2]}


def _swin(shapes: Shapes) -> dict[str, Any] | None:
    table = "features.features.1.0.attn.relative_position_bias_table"
    depths = [_count(shapes, f"features.features.{stage}.") for stage in (1, 3, 5, 7)]
    return {"name": "swin_tiny"} if table in shapes and depths == [2, 2, 6, 2] else None


_FINDERS: tuple[Callable[[Shapes], dict[str, Any] | None], ...] = (
    _resnet,
    _se_resnet,
    _small_resnet,
    _mobilenet_v2,
    _shufflenet_v2,
    _densenet,
    _swin,
    _vgg_or_alexnet,
    _inception,
    _deit,
)


def _count(shapes: Shapes, prefix: str) -> int:
    """Return how many numbered children a module has."""
    rests = (name.removeprefix(prefix) for name in shapes if name.startswith(prefix))
    return len({rest.split(".")[0] for rest in rests if rest.split(".")[0].isdigit()})


# --- head ----------------------------------------------------------------------------------------


def _find_head(
    shapes: Shapes, out_channels: int | None, layout: Layout, found: Found
) -> dict[str, Any]:
    reduction = shapes.get("head.reduction.0.weight")
    places = hidden_layers(shapes)
    head: dict[str, Any] = {
        "reduced_channels": None if reduction is None else reduction[0],
        "activation": layout.activation,
        "hidden": [shapes[f"head.hidden.{place}.weight"][0] for place in places],
        # VGG and AlexNet, the networks with hidden layers, have a dropout after each.
        "dropout": 0.5 if places and layout.name != "gcpctl" else 0.0,
    }
    if "features.features.18.0.weight" in shapes:
        head["dropout"] = 0.2  # MobileNetV2
    if reduction is not None:
        found.assumed.append(f"the reduction's activation is {layout.activation}")
    if "head.token_classifier.weight" in shapes:
        head["class_token"] = "sum" if "head.classifier.weight" in shapes else "only"
    if head.get("class_token") == "only":
        head["pooling"] = {"name": "gap"}
        return head
    channels = out_channels if reduction is None else reduction[0]
    first = f"head.hidden.{places[0]}.weight" if places else "head.classifier.weight"
    pooling = _find_pooling(shapes, channels, shapes[first][1])
    if pooling is not None:
        head["pooling"] = pooling
        if pooling["name"] == "isqrt":
            found.assumed.append(
                "the pooling is isqrt with 5 iterations; cov, mpn_eig and others have the same "
                "weights: head.pooling=NAME"
            )
    return head


def _find_pooling(shapes: Shapes, channels: int | None, width: int) -> dict[str, Any] | None:
    """Name the pooling of `channels` channels that gives vectors of `width`."""
    own = [name for name in shapes if name.startswith("head.pooling.")]
    if own:
        is_dropcov = own == ["head.pooling.importance.conv.weight"]
        return {"name": "dropcov"} if is_dropcov else None
    if channels is None:
        return None
    grid = next((g for g in (1, *_GRIDS) if width == channels * g * g), None)
    if grid is not None:
        return {"name": "gap", "grid": grid}
    if width == channels * (channels + 1) // 2:
        return {"name": "isqrt"}
    if width == channels * channels:
        return {"name": "bcnn"}
    return None


def _num_classes(shapes: Shapes) -> int:
    for name in ("head.classifier.weight", "head.token_classifier.weight"):
        if name in shapes:
            return shapes[name][0]
    raise WeightsError(
        "the file has no classifier",
        "the features alone are no network: train one on them, or find the complete file",
    )


def _build(backbone: dict[str, Any]) -> Backbone:
    """Build a backbone without its weights: it knows its widths and the order of its layers."""
    options = {key: value for key, value in backbone.items() if key != "name"}
    with torch.device("meta"):
        return BACKBONES[backbone["name"]](**options)


def _in_channels(shapes: Shapes, network: Backbone | None) -> int:
    """Return the inputs of the first convolution; files need not keep the order of layers."""
    order = shapes if network is None else [f"features.{name}" for name in network.state_dict()]
    for name in order:
        if name.startswith("features.") and len(shapes.get(name, ())) == 4:
            return shapes[name][1]
    raise WeightsError("the file has no convolution, so it is no network for images")


def _assume_strides(
    backbone: dict[str, Any],
    head: dict[str, Any],
    layout: Layout,
    arch: str | None,
    found: Found,
) -> None:
    """Fill in what leaves no trace in the weights."""
    pooling = head.get("pooling", {}).get("name")
    name = backbone["name"]
    if name.startswith(("resnet", "se_resnet")):
        backbone["last_stride"], why = _last_stride(name, layout, arch)
        found.assumed.append(f"backbone.last_stride={backbone['last_stride']}, {why}")
        if name in ("resnet50", "resnet101", "resnet152"):
            found.assumed.append("backbone.stride_at=3x3, as torchvision and all PyTorch code")
    elif name == "small_resnet":
        found.assumed.append("backbone.last_stride=2, the default")
    elif name in ("vgg16", "vgg16_bn", "alexnet"):
        backbone["last_pool"] = pooling == "gap"
        found.assumed.append(f"backbone.last_pool={str(pooling == 'gap').lower()}")


def _last_stride(name: str, layout: Layout, arch: str | None) -> tuple[int, str]:
    """Return the stride of a ResNet's last stage, and why it is taken."""
    if layout.name == WRAPPED_RESNET and name in ("resnet50", "resnet101"):
        # Trained from scratch, its resnet and its mpncovresnet have the same names and shapes.
        if arch is None:
            return (
                layout.last_stride,
                f"as its {name}; if it is an mpncov{name}, which has the same names and shapes, "
                "say backbone.last_stride=1",
            )
        if arch.startswith("mpncovresnet"):
            return 1, f"as the file's arch, {arch}"
    return layout.last_stride, "as the code of this layout"
