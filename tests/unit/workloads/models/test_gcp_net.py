"""Networks: shapes, published parameter counts, strides, seeds, config parity."""

import inspect

import pytest
import torch
from torch import nn

from workloads.config.model import (
    HeadConfig,
    IsqrtConfig,
    ModelConfig,
    ResNet18Config,
    SmallResNetConfig,
)
from workloads.config.validate import validate
from workloads.models.backbones import BACKBONES
from workloads.models.gcp_net import build_model, find_non_finite_layer
from workloads.models.head import GCPHead
from workloads.models.resnet18 import ResNet18
from workloads.models.small_resnet import SmallResNet
from workloads.pooling.average import AveragePooling

CONFIGS = {"small_resnet": SmallResNetConfig, "resnet18": ResNet18Config}


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def resnet18_net(reduced_channels: int | None, pooling: str) -> nn.Module:
    document = {
        "backbone": "resnet18",
        "head": {"reduced_channels": reduced_channels, "pooling": pooling},
    }
    return build_model(validate(ModelConfig, document, "test"), in_channels=3, num_classes=1000)


def test_resnet18_has_the_published_parameters() -> None:
    assert num_parameters(ResNet18()) == 11_176_512
    assert num_parameters(resnet18_net(None, "gap")) == 11_689_512
    assert num_parameters(resnet18_net(64, "isqrt")) == 13_290_408
    assert num_parameters(resnet18_net(256, "isqrt")) == 44_205_096


@pytest.mark.parametrize(("last_stride", "side"), [(2, 2), (1, 4)])
def test_resnet18_maps(last_stride: int, side: int) -> None:
    backbone = ResNet18(in_channels=1, last_stride=last_stride).eval()
    assert backbone(torch.zeros(1, 1, 64, 64)).shape == (1, 512, side, side)


@pytest.mark.parametrize(
    ("blocks", "last_stride", "channels", "side"),
    [((1, 1), 2, 16, 4), ((1, 1), 1, 16, 8), ((2, 1, 1), 2, 32, 2), ((1,), 2, 8, 8)],
)
def test_small_resnet_maps(
    blocks: tuple[int, ...], last_stride: int, channels: int, side: int
) -> None:
    backbone = SmallResNet(in_channels=1, width=8, blocks=blocks, last_stride=last_stride)
    features = backbone(torch.zeros(2, 1, 8, 8))
    assert features.shape == (2, channels, side, side)
    assert backbone.out_channels == channels


@pytest.mark.parametrize("reduced_channels", [None, 12])
@pytest.mark.parametrize("pooling", ["gap", "isqrt"])
def test_digits_network_trains(pooling: str, reduced_channels: int | None) -> None:
    document = {"head": {"pooling": pooling, "reduced_channels": reduced_channels}}
    model = build_model(validate(ModelConfig, document, "test"), in_channels=1, num_classes=10)
    logits = model(torch.randn(4, 1, 8, 8))
    assert logits.shape == (4, 10)
    logits.logsumexp(1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
    assert model.eval()(torch.randn(1, 1, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize("image_size", [8, 9, 31, 64])
@pytest.mark.parametrize(
    "backbone",
    [
        {"name": "small_resnet", "width": 4, "blocks": [1, 1, 1], "last_stride": 1},
        {"name": "small_resnet", "width": 4, "blocks": [1, 1, 1, 1]},
        {"name": "small_resnet", "width": 4, "blocks": [1]},
        {"name": "resnet18"},
        {"name": "resnet18", "last_stride": 1},
    ],
)
def test_the_config_knows_the_side_of_the_map(backbone: dict, image_size: int) -> None:
    config = validate(ModelConfig, {"backbone": backbone}, "test")
    network = build_model(config, in_channels=1, num_classes=2).eval()
    side = network.features(torch.zeros(1, 1, image_size, image_size)).shape[-1]
    assert config.map_side(image_size) == side


def test_weights_depend_on_the_seed_alone() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return list(build_model(ModelConfig(), in_channels=1, num_classes=10).parameters())

    assert all(torch.equal(a, b) for a, b in zip(weights(3), weights(3), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(3), weights(4), strict=True))


def test_building_draws_from_the_generator_but_does_not_seed_it() -> None:
    torch.manual_seed(1)
    build_model(ModelConfig(), in_channels=1, num_classes=10)
    first = torch.rand(1)
    torch.manual_seed(2)
    build_model(ModelConfig(), in_channels=1, num_classes=10)
    assert torch.rand(1) != first


@pytest.mark.parametrize("name", BACKBONES)
def test_config_fields_are_the_keywords(name: str) -> None:
    parameters = inspect.signature(BACKBONES[name]).parameters
    keywords = {k: p.default for k, p in parameters.items() if k != "in_channels"}
    fields = {k: f.default for k, f in CONFIGS[name].model_fields.items() if k != "name"}
    assert keywords == fields
    assert parameters["in_channels"].default == 3


def test_head_config_fields_are_the_keywords() -> None:
    parameters = inspect.signature(GCPHead).parameters
    assert set(parameters) - {"in_channels", "num_classes"} == set(HeadConfig.model_fields)
    assert parameters["reduced_channels"].default == HeadConfig().reduced_channels
    assert HeadConfig().pooling == IsqrtConfig()


def test_head_refuses_a_pooling_of_another_width() -> None:
    with pytest.raises(ValueError, match="the pooling takes 8 channels, not 32"):
        GCPHead(in_channels=64, num_classes=2, pooling=AveragePooling(in_channels=8))


def test_non_finite_layer_is_named() -> None:
    model = build_model(ModelConfig(), in_channels=1, num_classes=10)
    images = torch.randn(2, 1, 8, 8)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert find_non_finite_layer(model, images) is None
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert find_non_finite_layer(model, images * float("nan")) == "the images"
    with torch.no_grad():
        model.features.stages[1][0].conv2.weight.mul_(1e38)
    named = find_non_finite_layer(model, images)
    assert named is not None
    assert named.startswith("features.stages.1.0")
    with torch.no_grad():
        model.head.classifier.weight.fill_(float("inf"))
    assert find_non_finite_layer(model, images) == "the weights of head.classifier.weight"
