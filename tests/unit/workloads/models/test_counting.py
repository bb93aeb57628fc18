"""Parameters and multiply-adds of the published networks, digit by digit."""

import dataclasses
from typing import Any

import pytest
import torch

from workloads.config.model import ModelConfig
from workloads.config.validate import validate
from workloads.models.counting import Counts, count
from workloads.models.gcp_net import GCPNet, build_model

GAP = {"reduced_channels": None, "pooling": "gap"}
VGG_HIDDEN = {"hidden": [4096, 4096], "dropout": 0.5}


def gcp(channels: int, pooling: str = "cov", **options: Any) -> dict[str, Any]:
    return {"reduced_channels": channels, "pooling": pooling, **options}


def resnet(depth: int, *, v1: bool = False, stride: int = 1) -> dict[str, Any]:
    options = {"stride_at": "1x1"} if v1 else {}
    return {"name": f"resnet{depth}", "last_stride": stride, **options}


def meta_model(backbone: Any, head: dict[str, Any], num_classes: int = 1000) -> GCPNet:
    config = validate(ModelConfig, {"backbone": backbone, "head": head}, "test")
    with torch.device("meta"):
        return build_model(config, in_channels=3, num_classes=num_classes)


def counted(backbone: Any, head: dict[str, Any], image_size: int = 224) -> Counts:
    return count(meta_model(backbone, head), image_size)


RESNETS = [
    # depth, v1, reduced width (None: GAP), parameters, printed GMAC of convolutions and Linear
    (18, False, None, 11_689_512, "1.814"),
    (18, False, 64, 13_290_408, "3.055"),
    (18, False, 128, 19_499_304, "3.068"),
    (18, False, 256, 44_205_096, "3.105"),
    (34, False, None, 21_797_672, "3.664"),
    (34, False, 64, 23_398_568, "5.599"),
    (34, False, 128, 29_607_464, "5.611"),
    (34, False, 256, 54_313_256, "5.649"),
    (50, False, None, 25_557_032, "4.089"),
    (50, True, None, 25_557_032, "3.858"),
    (50, False, 64, 25_720_232, "6.234"),
    (50, False, 128, 32_027_432, "6.266"),
    (50, False, 160, 36_717_032, "6.284"),
    (50, False, 256, 56_929_832, "6.342"),
    (50, True, 64, 25_720_232, "6.080"),
    (50, True, 128, 32_027_432, "6.112"),
    (50, True, 160, 36_717_032, "6.130"),
    (50, True, 256, 56_929_832, "6.188"),
    (101, False, None, 44_549_160, "7.801"),
    (101, True, None, 44_549_160, "7.570"),
    (101, False, 64, 44_712_360, "9.947"),
    (101, False, 128, 51_019_560, "9.978"),
    (101, False, 256, 75_921_960, "10.054"),
    (101, True, 64, 44_712_360, "9.792"),
    (101, True, 128, 51_019_560, "9.824"),
    (101, True, 256, 75_921_960, "9.900"),
    (152, False, None, 60_192_808, "11.514"),
    (152, False, 128, 66_663_208, "13.691"),
    (152, False, 256, 91_565_608, "13.767"),
]


@pytest.mark.parametrize(("depth", "v1", "channels", "parameters", "gmac"), RESNETS)
def test_resnets(depth: int, v1: bool, channels: int | None, parameters: int, gmac: str) -> None:
    stride = 2 if channels is None else 1
    counts = counted(
        resnet(depth, v1=v1, stride=stride), GAP if channels is None else gcp(channels)
    )
    assert counts.total_parameters == parameters
    assert f"{counts.layer_macs / 1e9:.3f}" == gmac
    assert counts.num_positions == (49 if channels is None else 196)


def test_most_of_the_cost_is_the_removed_stride() -> None:
    counts = counted(resnet(18, stride=2), gcp(128))
    assert f"{counts.layer_macs / 1e9:.3f}" == "1.825"
    assert counts.num_positions == 49


@pytest.mark.parametrize(
    ("backbone", "channels", "parameters", "gmac"),
    [
        ("mobilenet_v2", None, 3_504_872, "0.3008"),
        ("mobilenet_v2", 128, 10_644_968, "0.3166"),
        ("mobilenet_v2", 256, 35_449_064, "0.3517"),
        ("shufflenet_v2_x1_0", None, 2_278_604, "0.1449"),
        ("shufflenet_v2_x1_0", 128, 9_641_932, "0.1594"),
        ("shufflenet_v2_x1_0", 256, 34_413_260, "0.1928"),
    ],
)
def test_mobile_networks_with_their_covariance(
    backbone: str, channels: int | None, parameters: int, gmac: str
) -> None:
    counts = counted(backbone, GAP if channels is None else gcp(channels, activation="relu6"))
    assert counts.total_parameters == parameters
    assert f"{(counts.layer_macs + counts.macs.get('covariance', 0)) / 1e9:.4f}" == gmac


@pytest.mark.parametrize(
    ("backbone", "head", "parameters"),
    [
        (
            {"name": "vgg16_bn"},
            {"reduced_channels": None, "pooling": {"name": "gap", "grid": 7}, **VGG_HIDDEN},
            138_365_992,
        ),
        (
            {"name": "vgg16_bn", "last_pool": False},
            gcp(256, "isqrt", **VGG_HIDDEN),
            170_479_144,
        ),
        (
            {"name": "vgg16"},
            {"reduced_channels": None, "pooling": {"name": "gap", "grid": 7}, **VGG_HIDDEN},
            138_357_544,
        ),
        (
            {"name": "alexnet"},
            {"reduced_channels": None, "pooling": {"name": "gap", "grid": 6}, **VGG_HIDDEN},
            61_100_840,
        ),
        ({"name": "se_resnet50"}, GAP, 28_088_024),
        ({"name": "densenet121"}, GAP, 7_978_856),
        ({"name": "densenet161"}, GAP, 28_681_000),
        ({"name": "densenet169"}, GAP, 14_149_480),
        ({"name": "densenet201"}, GAP, 20_013_928),
        ({"name": "inception_v3"}, GAP, 23_834_568),  # torchvision's 27,161,264 less AuxLogits
        ({"name": "shufflenet_v2_x0_5"}, GAP, 1_366_792),
        ({"name": "shufflenet_v2_x1_5"}, GAP, 3_503_624),
        ({"name": "shufflenet_v2_x2_0"}, GAP, 7_393_996),
    ],
)
def test_parameters(backbone: dict[str, Any], head: dict[str, Any], parameters: int) -> None:
    model = meta_model(backbone, head)
    counts = count(model, 299 if backbone["name"] == "inception_v3" else 224)
    assert counts.total_parameters == parameters
    assert sum(weight.numel() for weight in model.parameters()) == parameters


def test_dropcov_has_three_weights_more() -> None:
    plain, dropped = counted(resnet(18), gcp(64)), counted(resnet(18), gcp(64, "dropcov"))
    assert dropped.parameters == {**plain.parameters, "pooling": 3}
    assert dropped.total_parameters == 13_290_411


def test_every_part_of_one_network() -> None:
    counts = counted(resnet(50), gcp(128, "isqrt"))
    assert dataclasses.asdict(counts) == {
        "parameters": {
            "features": 23_508_032,
            "reduction": 2048 * 128 + 2 * 128,
            "pooling": 0,
            "classifier": 8256 * 1000 + 1000,
        },
        "macs": {
            "features": 6_206_570_496,
            "reduction": 2048 * 128 * 196,
            "covariance": 128**2 * 196,
            "normalisation": 12 * 128**3,
            "classifier": 8256 * 1000,
        },
        "map_shape": (2048, 14, 14),
        "num_positions": 196,
        "channels": 128,
        "vector_width": 8256,
    }
    assert counts.total_macs == sum(counts.macs.values())


def test_attention_and_the_class_token_are_counted_apart() -> None:
    depth, width, tokens = 12, 384, 197
    only = counted("deit_small", {"class_token": "only"})
    blocks = depth * 12 * width**2 * tokens
    assert only.macs == {
        "features": blocks + 196 * width * 16 * 16 * 3,
        "attention": depth * 2 * tokens**2 * width,
        "classifier": width * 1000,
    }
    assert only.total_parameters == 22_050_664
    assert only.map_shape == (tokens, width)
    assert (only.num_positions, only.channels, only.vector_width) == (0, 0, 0)
    both = counted("deit_small", gcp(64, activation="none"))
    assert both.num_positions == 196
    assert both.macs["reduction"] == width * 64 * 196
    assert both.macs["classifier"] == (width + 2080) * 1000


def test_grouped_convolutions_count_their_group_only() -> None:
    model = meta_model("mobilenet_v2", GAP)
    depthwise = model.features.features[1].conv[0][0]
    assert depthwise.groups == 32
    model.features.features = model.features.features[1].conv[0]
    model.features.forward = lambda images: depthwise(images.expand(-1, 32, -1, -1))
    assert count(model, 20, in_channels=1).macs["features"] == 32 * 9 * 20 * 20


def test_counting_changes_nothing_and_needs_no_meta_model() -> None:
    torch.manual_seed(0)
    document = {"backbone": {"name": "small_resnet", "width": 8}, "head": {"reduced_channels": 6}}
    model = build_model(validate(ModelConfig, document, "test"), in_channels=1, num_classes=10)
    model.features.stem.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    counts = count(model, 8, in_channels=1)
    assert counts.map_shape == (16, 4, 4)
    assert model.training
    assert not model.features.stem.training
    for name, value in model.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, before[name])


def test_frozen_weights_are_not_counted() -> None:
    model = meta_model("small_resnet", gcp(8), num_classes=10)
    whole = count(model, 16).parameters
    model.features.requires_grad_(False)
    assert count(model, 16).parameters == {**whole, "features": 0}


def test_an_image_too_small_is_refused() -> None:
    with pytest.raises(RuntimeError, match="too small"):
        counted("alexnet", GAP, image_size=32)
