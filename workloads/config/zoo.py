"""The named networks: what the papers trained, and their backbones with the other poolings.

A name is `<backbone>_<pooling>[_<reduced channels>]`. All of it is config, so that listing and
completing names costs no torch; `workloads.models.published` says what was published for which.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from workloads.config.model import ModelConfig
from workloads.config.validate import validate


@dataclass(frozen=True)
class ZooEntry:
    """A network with the images and classes it is published for."""

    name: str
    model: ModelConfig
    image_size: int = 224
    in_channels: int = 3
    num_classes: int = 1000


@cache
def load_zoo() -> Mapping[str, ZooEntry]:
    """Return every named network, in the order in which people read them."""
    families = (
        _resnets,
        _se_resnets,
        _mobile_networks,
        _vggs,
        _alexnets,
        _densenets,
        _inceptions,
        _deits,
        _sots,
        _swins,
        _small_resnets,
    )
    entries = [entry for family in families for entry in family()]
    return MappingProxyType({entry.name: entry for entry in entries})


# --- convolutional networks ----------------------------------------------------------------------

_FULLY_CONNECTED: dict[str, Any] = {"hidden": (4096, 4096), "dropout": 0.5}
"""AlexNet's and VGG's layers between the vector and the classifier, kept with GCP."""


def _resnets() -> Iterator[ZooEntry]:
    """GAP keeps the last stage's stride; GCP removes it: 196 positions instead of 49.

    MPN-COV was trained in MatConvNet, whose ResNets stride in the 1x1 convolution.
    """
    for depth in (18, 34, 50, 101, 152):
        name = f"resnet{depth}"
        yield _gap(name)
        backbone = {"name": name, "last_stride": 1}
        for width in (64, 128, 160, 256) if depth == 50 else (64, 128, 256):
            yield _reduced(backbone, "isqrt", width)
        for width in (64, 128, 256):
            yield _reduced(backbone, "dropcov", width)
        if depth >= 50:
            yield _reduced({**backbone, "stride_at": "1x1"}, "mpn_eig", 256)


def _se_resnets() -> Iterator[ZooEntry]:
    """The TPAMI 2023 paper's variant: fewer SE blocks than the standard one, and another stem."""
    paper = {"name": "se_resnet50", "variant": "seed"}
    yield _entry("se_resnet50_gap", paper, _head("gap"))
    for pooling in ("isqrt", "dropcov"):
        yield _reduced({**paper, "last_stride": 1}, pooling, 128)


def _mobile_networks() -> Iterator[ZooEntry]:
    """Stride kept, ReLU6 in the reduction; MobileNetV2 keeps its dropout before the classifier."""
    own: dict[str, dict[str, Any]] = {"mobilenet_v2": {"dropout": 0.2, "classifier_init": "normal"}}
    shufflenets = [f"shufflenet_v2_x{size}" for size in ("0_5", "1_0", "1_5", "2_0")]
    for name in ("mobilenet_v2", *shufflenets):
        options = own.get(name, {})
        yield _gap(name, **options)
        for width in (128, 256):
            yield _reduced({"name": name}, "isqrt", width, activation="relu6", **options)


def _vggs() -> Iterator[ZooEntry]:
    """GCP takes the place of the last max-pooling; bilinear pooling has no reduction before it."""
    layers = {**_FULLY_CONNECTED, "classifier_init": "normal"}
    for name in ("vgg16", "vgg16_bn"):
        yield _entry(f"{name}_gap", name, _head({"name": "gap", "grid": 7}, **layers))
        maps = {"name": name, "last_pool": False}
        for pooling in ("isqrt", "mpn_eig"):
            yield _reduced(maps, pooling, 256, **layers)
        # Both are published on birds, aircraft and cars at 448 pixels.
        for pooling in ("bcnn", "cbp"):
            yield _entry(f"{name}_{pooling}", maps, _head(pooling), image_size=448)


def _alexnets() -> Iterator[ZooEntry]:
    """MPN-COV takes conv5's 256 channels as they are; fast-MPN-COV puts a 256 reduction between."""
    yield _entry("alexnet_gap", "alexnet", _head({"name": "gap", "grid": 6}, **_FULLY_CONNECTED))
    maps = {"name": "alexnet", "last_pool": False}
    yield _entry("alexnet_mpn_eig_256", maps, _head("mpn_eig", **_FULLY_CONNECTED))
    yield _reduced(maps, "isqrt", 256, **_FULLY_CONNECTED)


def _densenets() -> Iterator[ZooEntry]:
    for depth in (121, 161, 169, 201):
        yield _gap(f"densenet{depth}")
        yield _reduced({"name": f"densenet{depth}"}, "isqrt", 256)


def _inceptions() -> Iterator[ZooEntry]:
    yield _gap("inception_v3", dropout=0.5, image_size=299)
    yield _reduced({"name": "inception_v3"}, "isqrt", 256, image_size=299)


# --- transformers --------------------------------------------------------------------------------

_DROP_PATH = 0.1
"""Stochastic depth in the published training of DeiT, SoT and DropCov; theirs of Swin-T too, whose
own code has 0.2."""

_CROSS_COV = {
    "tiny": {"num_heads": 6, "head_width": 14},
    "small": {"num_heads": 6, "head_width": 24},
    "base": {"num_heads": 12, "head_width": 24},
}
"""DropCov's heads by size of network."""

_SOT = {
    "tiny": {"num_heads": 6, "head_width": 14, "dropout": 0.0},
    "small": {"num_heads": 6, "head_width": 24, "dropout": 0.5},
    "base": {"num_heads": 6, "head_width": 38, "dropout": 0.7},
}
"""SoT's own heads, and its dropout on the entries of the normalised matrices."""


def _deits() -> Iterator[ZooEntry]:
    """The plain network judges by its class token; the others add a classifier of all tokens."""
    for size, heads in _CROSS_COV.items():
        backbone = {"name": f"deit_{size}", "drop_path": _DROP_PATH}
        yield _entry(f"deit_{size}", backbone, _head("gap", class_token="only"))
        yield from _token_heads(backbone, heads)


def _sots() -> Iterator[ZooEntry]:
    """Both are as released; that `dropcov` has a fixed rate (D8), `deit_*_dropcov` adapts it."""
    for size, heads in _CROSS_COV.items():
        name = f"sot_{size}"
        backbone = {"name": name, "drop_path": _DROP_PATH}
        svpn = _cross_cov(**_SOT[size], normaliser="svpn")
        yield _entry(f"{name}_svpn", {**backbone, "variant": "sot"}, svpn)
        dropcov = _cross_cov(**heads, rate=0.2, dropout=0.5)
        yield _entry(f"{name}_dropcov", {**backbone, "variant": "dropcov"}, dropcov)


def _swins() -> Iterator[ZooEntry]:
    backbone = {"name": "swin_tiny", "drop_path": _DROP_PATH}
    yield _entry("swin_tiny_gap", backbone, _head("gap"))
    yield from _token_heads(backbone, _CROSS_COV["small"])


def _token_heads(backbone: dict[str, Any], heads: dict[str, int]) -> Iterator[ZooEntry]:
    name = backbone["name"]
    yield _entry(f"{name}_cross_cov", backbone, _cross_cov(**heads))
    yield _entry(f"{name}_svpn", backbone, _cross_cov(**heads, normaliser="svpn", dropout=0.5))
    yield _entry(f"{name}_dropcov", backbone, _cross_cov(**heads, adaptive=True, dropout=0.5))


def _cross_cov(**options: Any) -> dict[str, Any]:
    return _head({"name": "cross_cov", **options}, activation="none")


# --- small images --------------------------------------------------------------------------------


def _small_resnets() -> Iterator[ZooEntry]:
    """The networks of the recipes for the built-in digits."""
    digits = {"image_size": 8, "in_channels": 1, "num_classes": 10}
    yield _entry("small_resnet_gap", "small_resnet", _head("gap", 32), **digits)
    for pooling in ("isqrt", "dropcov"):
        yield _reduced({"name": "small_resnet"}, pooling, 32, **digits)


# --- from choices to entries ---------------------------------------------------------------------

_IMAGES = ("image_size", "in_channels", "num_classes")


def _gap(backbone: str, *, image_size: int = 224, **options: Any) -> ZooEntry:
    """Return the network as its own paper has it: no reduction, one average per channel."""
    return _entry(f"{backbone}_gap", backbone, _head("gap", **options), image_size=image_size)


def _reduced(backbone: dict[str, Any], pooling: str, width: int, **options: Any) -> ZooEntry:
    """Return a network with a 1x1 reduction to `width` channels before the pooling."""
    images = {key: options.pop(key) for key in _IMAGES if key in options}
    name = f"{backbone['name']}_{pooling}_{width}"
    return _entry(name, backbone, _head(pooling, width, **options), **images)


def _head(
    pooling: dict[str, Any] | str, reduced_channels: int | None = None, **options: Any
) -> dict[str, Any]:
    return {"reduced_channels": reduced_channels, "pooling": pooling, **options}


def _entry(
    name: str, backbone: dict[str, Any] | str, head: dict[str, Any], **images: Any
) -> ZooEntry:
    document = {"backbone": backbone, "head": head}
    return ZooEntry(name=name, model=validate(ModelConfig, document, f"zoo: {name}"), **images)
