"""How published files name their weights, and what each name is called here.

A layout is told by the names in the file alone. Its rules are tried in order, the first whose
pattern matches a whole name decides; what no rule matches belongs to the backbone. Names here are
`features.<name in torchvision's network>` and `head.*`. Files say nothing of strides: what a layout
assumes of them stands in the table.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from workloads.models.weights.errors import WeightsError, shorten

T = TypeVar("T")
Replacement = str | Callable[[re.Match[str]], str]


@dataclass(frozen=True)
class Layout:
    """One way to name the weights of a network.

    Attributes:
        name: How answers call it.
        needs: Names that must all be there; `a|b` stands for either.
        rules: Pattern and replacement, in order.
        last_stride: Stride of a ResNet's last stage in the code that writes such files.
        activation: After the reduction, in that code.
    """

    name: str
    needs: tuple[str, ...]
    rules: tuple[tuple[str, Replacement], ...] = ()
    last_stride: int = 2
    activation: str = "relu"

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return what is needed and not there."""
        there = set(names)
        return [need for need in self.needs if not there.intersection(need.split("|"))]

    def rename(self, name: str) -> str:
        """Return what a weight of such a file is called here."""
        for pattern, replacement in self.rules:
            if match := re.fullmatch(pattern, name):
                return (
                    match.expand(replacement)
                    if isinstance(replacement, str)
                    else replacement(match)
                )
        return f"features.{name}"


def _numbered(names: Mapping[int, str]) -> Callable[[re.Match[str]], str]:
    """Give the children of an nn.Sequential, which have numbers, their names back."""

    def replace(match: re.Match[str]) -> str:
        number = int(match[1])
        return f"{names[number]}.{match[2]}" if number in names else f"features.{match[0]}"

    return replace


_RESNET_CHILDREN = {
    0: "features.conv1",
    1: "features.bn1",
    4: "features.layer1",
    5: "features.layer2",
    6: "features.layer3",
    7: "features.layer4",
    8: "head.reduction.0",
    9: "head.reduction.1",
}
_INCEPTION_BLOCKS = {
    0: "Conv2d_1a_3x3",
    1: "Conv2d_2a_3x3",
    2: "Conv2d_2b_3x3",
    4: "Conv2d_3b_1x1",
    5: "Conv2d_4a_3x3",
    **{
        7 + i: f"Mixed_{name}"
        for i, name in enumerate(("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"))
    },
}
_CLASSIFIER = (
    (r"(?:fc|classifier|head)\.(weight|bias)", r"head.classifier.\1"),
    # The last of several is found in `rename_all`.
    (r"classifier\.(\d+)\.(weight|bias)", r"head.hidden.\1.\2"),
)
_WRAPPED_REDUCTION = ((r"representation\.conv_dr_block\.([01])\.(.+)", r"head.reduction.\1.\2"),)
_LAYER_REDUCE = (
    (r"layer_reduce\.(.+)", r"head.reduction.0.\1"),
    (r"layer_reduce_bn\.(.+)", r"head.reduction.1.\1"),
    (r"Layer_Reduce\.(.+)", r"head.reduction.0.\1"),
    (r"Layer_Reduce_BN\.(.+)", r"head.reduction.1.\1"),
    (r"eca_layer\.conv\.(.+)", r"head.pooling.importance.conv.\1"),
)
_DIMENSION_REDUCTION = ((r"dimension_reduction\.([01])\.(.+)", r"head.reduction.\1.\2"),)
WRAPPED_RESNET = "fast-MPN-COV wrapper, ResNet"
_RESNET = ("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight")

LAYOUTS = (
    Layout(
        "gcpctl",
        (
            "head.classifier.weight|head.token_classifier.weight",
            "head.classifier.bias|head.token_classifier.bias",
        ),
        (("(.+)", r"\1"),),
    ),
    Layout(
        "fast-MPN-COV wrapper, ResNet with its own reduction",
        (
            "features.0.weight",
            "features.4.0.conv1.weight",
            "features.8.weight",
            "classifier.weight",
        ),
        ((r"features\.(\d+)\.(.+)", _numbered(_RESNET_CHILDREN)), *_CLASSIFIER),
        last_stride=1,
    ),
    Layout(
        WRAPPED_RESNET,
        ("features.0.weight", "features.4.0.conv1.weight", "classifier.weight"),
        (
            (r"features\.(\d+)\.(.+)", _numbered(_RESNET_CHILDREN)),
            *_WRAPPED_REDUCTION,
            *_CLASSIFIER,
        ),
    ),
    Layout(
        "fast-MPN-COV wrapper, Inception",
        ("features.0.conv.weight", "features.17.branch1x1.conv.weight", "classifier.weight"),
        (
            (
                r"features\.(\d+)\.(.+)",
                _numbered({n: f"features.{block}" for n, block in _INCEPTION_BLOCKS.items()}),
            ),
            *_WRAPPED_REDUCTION,
            *_CLASSIFIER,
        ),
    ),
    Layout(
        "fast-MPN-COV wrapper",
        (
            "representation.conv_dr_block.0.weight",
            "features.0.weight|features.conv0.weight",
            "classifier.weight|classifier.0.weight|classifier.1.weight",
        ),
        (*_WRAPPED_REDUCTION, *_CLASSIFIER),
    ),
    Layout(
        "DropCov",
        (*_RESNET, "layer_reduce.weight", "eca_layer.conv.weight", "fc.weight"),
        (*_LAYER_REDUCE, *_CLASSIFIER),
        last_stride=1,
    ),
    Layout(
        "fast-MPN-COV or GCP_Optimization, ResNet",
        (*_RESNET, "layer_reduce.weight|Layer_Reduce.weight", "fc.weight"),
        (*_LAYER_REDUCE, *_CLASSIFIER),
        last_stride=1,
    ),
    Layout(
        "GCP_Optimization, MobileNetV2",
        ("features.0.0.weight", "dimension_reduction.0.weight", "classifier.1.weight"),
        (*_DIMENSION_REDUCTION, *_CLASSIFIER),
        activation="relu6",
    ),
    Layout(
        "GCP_Optimization landscape, MobileNetV2",
        ("conv1.0.weight", "features.0.conv.0.0.weight", "fc.weight"),
        (
            (r"conv1\.(.+)", r"features.features.0.\1"),
            (r"features\.(\d+)\.(.+)", lambda m: f"features.features.{int(m[1]) + 1}.{m[2]}"),
            *_DIMENSION_REDUCTION,
            *_CLASSIFIER,
        ),
        activation="relu6",
    ),
    Layout(
        "GCP_Optimization, ShuffleNetV2",
        (
            "conv1.0.weight",
            "stage2.0.branch1.0.weight",
            "dimension_reduction.0.weight",
            "fc.weight",
        ),
        (*_DIMENSION_REDUCTION, *_CLASSIFIER),
        activation="relu6",
    ),
    Layout(
        "DeiT or timm, ViT",
        (
            "cls_token",
            "pos_embed",
            "patch_embed.proj.weight",
            "blocks.0.attn.qkv.weight",
            "head.weight",
        ),
        ((r"head\.(weight|bias)", r"head.token_classifier.\1"),),
    ),
    Layout(
        "torchvision",
        (
            "layer1.0.conv1.weight|stage2.0.branch1.0.weight|features.0.weight|features.0.0.weight|"
            "features.conv0.weight|Conv2d_1a_3x3.conv.weight",
            "fc.weight|classifier.weight|head.weight|classifier.1.weight|classifier.6.weight",
        ),
        _CLASSIFIER,
    ),
)

AUXILIARY = r"(?:AuxLogits|aux[12])\..+"
"""Heads that networks here do not have: they serve training only, nothing is lost without them."""


def find_layout(names: Iterable[str], file: str) -> Layout:
    """Return the first layout whose needs are met.

    Raises:
        WeightsError: None is; says which comes closest and what it lacks.
    """
    names = list(names)
    for layout in LAYOUTS:
        if not layout.missing(names):
            return layout
    closest = min(LAYOUTS, key=lambda layout: len(layout.missing(names)) / len(layout.needs))
    lacking = [need.replace("|", " or ") for need in closest.missing(names)]
    raise WeightsError(
        f"{file}: its names fit no known layout\nclosest: {closest.name}; it lacks\n"
        f"{shorten(lacking)}\nthe file has\n{shorten(sorted(names))}",
        f"known: {'; '.join(layout.name for layout in LAYOUTS)}",
    )


def rename_all(layout: Layout, tensors: Mapping[str, T]) -> tuple[dict[str, T], dict[str, str]]:
    """Give every tensor its name here.

    Returns:
        Tensors under their names here, and reasons by the old names of those left out.

    Raises:
        WeightsError: Two tensors get one name.
    """
    mapped: dict[str, T] = {}
    dropped: dict[str, str] = {}
    origin: dict[str, str] = {}
    for name, tensor in tensors.items():
        if layout.name == "torchvision" and re.fullmatch(AUXILIARY, name):
            dropped[name] = "auxiliary head, of use in training only"
            continue
        new = layout.rename(_modern(name))
        if new in mapped:
            raise WeightsError(f"{name} and {origin[new]} would both become {new}")
        mapped[new], origin[new] = tensor, name
    return _last_is_the_classifier(mapped), dropped


def _modern(name: str) -> str:
    """Old DenseNet files say `denselayer1.norm.1` for what is `denselayer1.norm1` since 2018."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)


def _last_is_the_classifier(mapped: dict[str, T]) -> dict[str, T]:
    """Of numbered Linear layers without a classifier the last is the classifier."""
    if "head.classifier.weight" in mapped or "head.token_classifier.weight" in mapped:
        return mapped
    last = max(
        (int(name.split(".")[2]) for name in mapped if name.startswith("head.hidden.")), default=-1
    )
    before = f"head.hidden.{last}."
    return {
        f"head.classifier.{name.removeprefix(before)}" if name.startswith(before) else name: tensor
        for name, tensor in mapped.items()
    }
