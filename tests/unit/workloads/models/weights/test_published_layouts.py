"""Every published layout: its files become networks with the same logits."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.unit.workloads.models.weights import published
from workloads.models.weights.convert import convert
from workloads.models.weights.model_file import load_model, save_model


class Case(NamedTuple):
    """A file: what builds its network, and what must be found in it."""

    build: Callable[[], nn.Module]
    layout: str
    backbone: dict[str, Any]
    pooling: str = "isqrt"
    reduced: int | None = published.WIDTH
    activation: str = "relu"
    image_size: int = 64
    hidden: tuple[int, ...] = ()
    rename: Callable[[dict[str, Tensor]], dict[str, Any]] = dict


def _without_counters(state: dict[str, Tensor]) -> dict[str, Any]:
    """Files of before 2018 have no num_batches_tracked."""
    return {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}


def _training_checkpoint(state: dict[str, Tensor]) -> dict[str, Any]:
    return {
        "epoch": 65,
        "arch": "resnet18_mpncov",
        "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
        "best_prec1": torch.tensor(75.1),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    }


def _module_inside(state: dict[str, Tensor]) -> dict[str, Any]:
    """DataParallel around the features alone."""
    return {name.replace("features.", "features.module.", 1): t for name, t in state.items()}


def _dotted(state: dict[str, Tensor]) -> dict[str, Any]:
    """DenseNet files of before 2018: denselayer1.norm.1 for denselayer1.norm1."""
    return {re.sub(r"(denselayer\d+\.[a-z]+)([12])", r"\1.\2", n): t for n, t in state.items()}


def _deit() -> nn.Module:
    import timm

    return timm.create_model(
        "deit_tiny_patch16_224", img_size=32, patch_size=8, num_classes=published.CLASSES
    )


CASES = {
    "fast_mpncovresnet50": Case(
        lambda: published.LayerReduceResNet("resnet50"),
        "fast-MPN-COV or GCP_Optimization, ResNet",
        {"name": "resnet50", "last_stride": 1, "stride_at": "3x3"},
        rename=_without_counters,
    ),
    "gcp_optimization_resnet18": Case(
        lambda: published.LayerReduceResNet("resnet18"),
        "fast-MPN-COV or GCP_Optimization, ResNet",
        {"name": "resnet18", "last_stride": 1},
        rename=_training_checkpoint,
    ),
    "gcp_optimization_landscape_resnet18": Case(
        lambda: published.LayerReduceResNet("resnet18", capitals=True),
        "fast-MPN-COV or GCP_Optimization, ResNet",
        {"name": "resnet18", "last_stride": 1},
    ),
    "dropcov_resnet18": Case(
        lambda: published.LayerReduceResNet("resnet18", dropcov=True),
        "DropCov",
        {"name": "resnet18", "last_stride": 1},
        pooling="dropcov",
    ),
    "gcp_optimization_mobilenet": Case(
        lambda: published.Reduced("mobilenet_v2"),
        "GCP_Optimization, MobileNetV2",
        {"name": "mobilenet_v2", "width_mult": 1.0},
        activation="relu6",
    ),
    "gcp_optimization_landscape_mobilenet": Case(
        lambda: published.Reduced("mobilenet_v2", landscape=True),
        "GCP_Optimization landscape, MobileNetV2",
        {"name": "mobilenet_v2"},
        activation="relu6",
    ),
    "gcp_optimization_shufflenet": Case(
        lambda: published.Reduced("shufflenet_v2_x0_5"),
        "GCP_Optimization, ShuffleNetV2",
        {"name": "shufflenet_v2_x0_5"},
        activation="relu6",
    ),
    "fast_wrapped_resnet18": Case(
        lambda: published.wrapped_resnet("resnet18"),
        "fast-MPN-COV wrapper, ResNet",
        {"name": "resnet18", "last_stride": 2},
    ),
    "fast_wrapped_mpncovresnet50": Case(
        lambda: published.wrapped_resnet("resnet50", last_stride=1),
        "fast-MPN-COV wrapper, ResNet",
        {"name": "resnet50", "last_stride": 1},
        rename=lambda state: {"arch": "mpncovresnet50", "state_dict": _module_inside(state)},
    ),
    "fast_wrapped_mpncovresnet18": Case(
        lambda: published.wrapped_mpncov_resnet("resnet18"),
        "fast-MPN-COV wrapper, ResNet with its own reduction",
        {"name": "resnet18", "last_stride": 1},
    ),
    "fast_vgg16_bn": Case(
        published.wrapped_vgg,
        "fast-MPN-COV wrapper",
        {"name": "vgg16_bn", "last_pool": False},
        hidden=(7, 6),
        rename=_module_inside,
    ),
    "fast_wrapped_alexnet": Case(
        published.wrapped_alexnet,
        "fast-MPN-COV wrapper",
        {"name": "alexnet", "last_pool": False},
        hidden=(7, 6),
    ),
    "fast_wrapped_densenet121": Case(
        published.wrapped_densenet,
        "fast-MPN-COV wrapper",
        {"name": "densenet121"},
        rename=_dotted,
    ),
    "fast_wrapped_inception": Case(
        published.wrapped_inception,
        "fast-MPN-COV wrapper, Inception",
        {"name": "inception_v3"},
        image_size=139,
    ),
    "torchvision_resnet18": Case(
        lambda: published.trunk("resnet18"),
        "torchvision",
        {"name": "resnet18", "last_stride": 2},
        pooling="gap",
        reduced=None,
    ),
    "torchvision_mobilenet": Case(
        lambda: published.trunk("mobilenet_v2"),
        "torchvision",
        {"name": "mobilenet_v2"},
        pooling="gap",
        reduced=None,
    ),
    "torchvision_shufflenet": Case(
        lambda: published.trunk("shufflenet_v2_x1_0"),
        "torchvision",
        {"name": "shufflenet_v2_x1_0"},
        pooling="gap",
        reduced=None,
    ),
    "torchvision_vgg16": Case(
        lambda: published.Plain("vgg16"),
        "torchvision",
        {"name": "vgg16", "last_pool": True},
        pooling="gap",
        reduced=None,
        image_size=32,
        hidden=(7, 6),
    ),
    "torchvision_alexnet": Case(
        lambda: published.Plain("alexnet"),
        "torchvision",
        {"name": "alexnet", "last_pool": True},
        pooling="gap",
        reduced=None,
        hidden=(7, 6),
    ),
    "torchvision_densenet121": Case(
        lambda: published.trunk("densenet121"),
        "torchvision",
        {"name": "densenet121"},
        pooling="gap",
        reduced=None,
        rename=_dotted,
    ),
    "torchvision_inception": Case(
        lambda: published.trunk("inception_v3", init_weights=False),
        "torchvision",
        {"name": "inception_v3"},
        pooling="gap",
        reduced=None,
        image_size=75,
    ),
    "torchvision_swin": Case(
        lambda: published.trunk("swin_t"),
        "torchvision",
        {"name": "swin_tiny"},
        pooling="gap",
        reduced=None,
        image_size=32,
    ),
    "deit": Case(
        _deit,
        "DeiT or timm, ViT",
        {"name": "deit_tiny", "image_size": 32, "patch_size": 8},
        pooling="gap",
        reduced=None,
        image_size=32,
        rename=lambda state: {"model": state},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_published_file_becomes_a_network_with_the_same_logits(name, tmp_path):
    case = CASES[name]
    original = published.randomise(case.build())
    state = original.state_dict()
    torch.save(case.rename(state), tmp_path / "published.pth")

    conversion = convert(tmp_path / "published.pth")
    save_model(conversion.model, tmp_path / "ours.gcpnet")
    network = load_model(tmp_path / "ours.gcpnet")

    images = torch.randn(
        2, 3, case.image_size, case.image_size, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        expected, got = original(images), network(images)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))

    config = conversion.model.config
    assert conversion.layout == case.layout
    assert case.backbone.items() <= config.backbone.model_dump().items()
    assert (config.head.pooling.name, config.head.reduced_channels) == (case.pooling, case.reduced)
    assert config.head.activation == case.activation
    assert config.head.hidden == case.hidden
    assert conversion.model.num_classes == published.CLASSES
    auxiliary = [key for key in state if key.startswith("AuxLogits.")]
    assert [key for key in conversion.dropped if key in state] == auxiliary
    counters = sum(key.endswith("num_batches_tracked") for key in state)
    missing = counters if case.rename is _without_counters else 0
    assert len(conversion.filled) == missing
    assert conversion.used == len(state) - missing - len(auxiliary)


def test_a_stride_that_only_the_arch_tells_is_said_where_it_is_missing(tmp_path):
    state = published.wrapped_resnet("resnet50").state_dict()
    said = {}
    for arch in (None, "resnet50", "mpncovresnet50"):
        torch.save({"state_dict": state} | ({"arch": arch} if arch else {}), tmp_path / "a.pth")
        conversion = convert(tmp_path / "a.pth")
        stride = conversion.model.config.backbone.last_stride
        sentence = next(line for line in conversion.assumed if "last_stride" in line)
        said[arch] = (stride, "mpncovresnet50" in sentence)
    assert said == {None: (2, True), "resnet50": (2, False), "mpncovresnet50": (1, True)}
