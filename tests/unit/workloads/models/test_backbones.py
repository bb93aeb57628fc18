"""Backbones: positions, parity with torchvision and timm, options, gradients, config parity."""

import copy
import inspect
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from workloads.config.backbones import (
    BackboneConfig,
    ResNetConfig,
    TimmConfig,
    TorchvisionConfig,
)
from workloads.models.alexnet import AlexNet
from workloads.models.backbone import Backbone
from workloads.models.backbones import BACKBONES
from workloads.models.densenet import DenseNet121
from workloads.models.errors import ModelError
from workloads.models.inception_v3 import InceptionV3
from workloads.models.mobilenet_v2 import MobileNetV2
from workloads.models.resnet import ResNet18, ResNet34, ResNet50
from workloads.models.se_resnet import SEResNet50, SqueezeExcitation
from workloads.models.shapes import meta_call, unused_parameters
from workloads.models.shufflenet_v2 import ShuffleNetV2x05
from workloads.models.torchvision_net import TorchvisionNet
from workloads.models.vgg import VGG16, VGG16BN

CONFIGS = {
    name: config
    for config in get_args(get_args(BackboneConfig)[0])
    for name in get_args(config.model_fields["name"].annotation)
}
REQUIRED = {"torchvision": {"model": "resnet18"}, "timm": {"model": "resnet18"}}

PUBLISHED = [
    # backbone, image size, positions: the tables of the papers at 224 and 299 pixels
    *[({"name": f"resnet{depth}"}, 224, 49) for depth in (18, 34, 50, 101, 152)],
    *[({"name": f"resnet{depth}", "last_stride": 1}, 224, 196) for depth in (18, 50)],
    ({"name": "se_resnet50", "last_stride": 1}, 224, 196),
    ({"name": "mobilenet_v2"}, 224, 49),
    ({"name": "shufflenet_v2_x1_0"}, 224, 49),
    ({"name": "vgg16", "last_pool": False}, 224, 196),
    ({"name": "alexnet", "last_pool": False}, 224, 169),
    ({"name": "alexnet"}, 224, 36),
    ({"name": "densenet121"}, 224, 49),
    ({"name": "inception_v3"}, 299, 64),
]

VARIANTS: list[dict[str, Any]] = [
    {"name": "small_resnet", "width": 4, "blocks": [1, 1, 1], "last_stride": 1},
    {"name": "small_resnet", "width": 4, "blocks": [1, 1, 1, 1]},
    {"name": "small_resnet", "width": 4, "blocks": [1]},
    {"name": "resnet18"},
    {"name": "resnet18", "last_stride": 1},
    {"name": "resnet18", "stem": "small", "last_stride": 1},
    {"name": "resnet50", "stride_at": "1x1"},
    {"name": "se_resnet50", "variant": "seed", "last_stride": 1, "stem": "small"},
    {"name": "mobilenet_v2"},
    {"name": "mobilenet_v2", "stem": "small", "width_mult": 0.5},
    {"name": "shufflenet_v2_x0_5"},
    {"name": "shufflenet_v2_x0_5", "stem": "small"},
    {"name": "vgg16"},
    {"name": "vgg16_bn", "last_pool": False},
    {"name": "alexnet"},
    {"name": "alexnet", "last_pool": False},
    {"name": "densenet121"},
    {"name": "densenet121", "stem": "small"},  # takes every size of 8 pixels and more
    {"name": "inception_v3"},
]


def label(backbone: object) -> str | None:
    return "-".join(map(str, backbone.values())) if isinstance(backbone, dict) else None


def build(backbone: dict[str, Any], in_channels: int = 3) -> Backbone:
    config = CONFIGS[backbone["name"]].model_validate(backbone)
    return BACKBONES[config.name](in_channels=in_channels, **config.model_dump(exclude={"name"}))


def build_on_meta(backbone: dict[str, Any], in_channels: int = 3) -> Backbone:
    with torch.device("meta"):
        return build(backbone, in_channels)


def shape_of(backbone: Backbone, image_size: int, in_channels: int = 3) -> tuple[int, ...]:
    images = torch.empty(1, in_channels, image_size, image_size, device="meta")
    return tuple(meta_call(backbone, images).shape)


@pytest.mark.parametrize(("backbone", "image_size", "positions"), PUBLISHED, ids=label)
def test_published_positions(backbone: dict[str, Any], image_size: int, positions: int) -> None:
    assert CONFIGS[backbone["name"]].model_validate(backbone).num_positions(image_size) == positions


@pytest.mark.parametrize("backbone", VARIANTS, ids=label)
def test_the_config_knows_the_positions(backbone: dict[str, Any]) -> None:
    config = CONFIGS[backbone["name"]].model_validate(backbone)
    network = build_on_meta(backbone)
    refused = 0
    for image_size in (7, 33, 64, 75):
        positions = config.num_positions(image_size)
        if positions:
            _, channels, height, width = shape_of(network, image_size)
            assert height * width == positions, image_size
            assert channels == network.out_channels
        else:
            refused += 1
            with pytest.raises(RuntimeError):
                shape_of(network, image_size)
    takes_any = ("resnet", "mobilenet", "shufflenet")
    assert (refused == 0) == any(kind in backbone["name"] for kind in takes_any)


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_config_fields_are_the_keywords(name: str) -> None:
    parameters = inspect.signature(BACKBONES[name]).parameters
    keywords = {key: p.default for key, p in parameters.items() if key != "in_channels"}
    required = REQUIRED.get(name, {})
    for key, field in CONFIGS[name].model_fields.items():
        if key != "name":
            default = keywords.pop(key)
            assert default == (inspect.Parameter.empty if key in required else field.default), key
    assert keywords == {}
    assert parameters["in_channels"].default == 3
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())


def test_every_config_has_its_backbone() -> None:
    assert set(CONFIGS) == set(BACKBONES)


TWINS = [
    (ResNet18, "resnet18", 64),
    (ResNet50, "resnet50", 64),
    (MobileNetV2, "mobilenet_v2", 64),
    (ShuffleNetV2x05, "shufflenet_v2_x0_5", 64),
    (VGG16, "vgg16", 64),
    (VGG16BN, "vgg16_bn", 64),
    (AlexNet, "alexnet", 64),
    (DenseNet121, "densenet121", 64),
    (InceptionV3, "inception_v3", 75),
]


@pytest.mark.parametrize(("backbone", "name", "image_size"), TWINS)
def test_torchvisions_weights_give_torchvisions_features(
    backbone: type[Backbone], name: str, image_size: int
) -> None:
    """Bit for bit, compared with what torchvision's own pooling is given."""
    with torch.device("meta"):
        twin = torchvision_model(name)
    torch.manual_seed(0)
    ours = backbone().eval()
    weights = {k: v for k, v in random_state(ours).items() if not k.endswith("num_batches_tracked")}
    theirs = twin.state_dict().keys()
    left = {k for k in theirs if k not in weights and not k.endswith("num_batches_tracked")}
    assert left <= {k for k in theirs if k.split(".")[0] in ("fc", "classifier", "AuxLogits")}
    # In the same order: a resumed optimizer knows weights by their number.
    assert [k for k in theirs if k in weights] == list(weights)
    ours.load_state_dict(weights, strict=False)
    for unused in ("fc", "classifier", "AuxLogits"):
        if hasattr(twin, unused):
            setattr(twin, unused, nn.Identity())
    twin.to_empty(device="cpu").load_state_dict(weights, strict=False)
    images = torch.rand(2, 3, image_size, image_size)
    with torch.no_grad():
        expected = maps_before_pooling(twin.eval(), name, images)
        assert torch.equal(ours(images), expected)
    assert expected.std() > 1e-3


def torchvision_model(name: str) -> nn.Module:
    from torchvision.models import get_model

    options = {"init_weights": True} if name == "inception_v3" else {}
    return get_model(name, weights=None, **options)


def random_state(model: nn.Module) -> dict[str, Tensor]:
    """Return its weights with batch statistics that are not the initial ones."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.normal_(std=0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return state


def maps_before_pooling(twin: nn.Module, name: str, images: Tensor) -> Tensor:
    """Run torchvision's network and return what it pools."""
    if name in ("mobilenet_v2", "densenet121"):
        maps = twin.features(images)  # pooled by a function
        return maps.relu() if name == "densenet121" else maps
    seen: list[Tensor] = []
    if name == "shufflenet_v2_x0_5":
        twin.conv5.register_forward_hook(lambda _layer, _inputs, output: seen.append(output))
    else:
        twin.avgpool.register_forward_hook(lambda _layer, inputs, _output: seen.append(*inputs))
    twin(images)
    return seen[0]


def test_the_standard_se_resnet_is_timms() -> None:
    timm = pytest.importorskip("timm", reason="compares with timm's network")
    torch.manual_seed(0)
    ours, theirs = SEResNet50().eval(), timm.create_model("seresnet50", num_classes=0).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(random_state(ours))
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs.forward_features(images))


def test_seed_weights_channels_in_two_blocks() -> None:
    with torch.device("meta"):
        network = SEResNet50(variant="seed")
    weighted = [n for n, layer in network.named_modules() if isinstance(layer, SqueezeExcitation)]
    assert weighted == ["layer3.5.se", "layer4.2.se"]
    assert [tuple(layer.weight.shape) for layer in network.conv1[::3]] == [
        (32, 3, 3, 3),
        (32, 32, 3, 3),
        (64, 32, 3, 3),
    ]
    assert network.layer4[2].se.fc1.out_channels == 2048 // 4


def test_squeeze_and_excitation() -> None:
    torch.manual_seed(0)
    layer = SqueezeExcitation(8, reduction=2).double()
    x = torch.rand(2, 8, 3, 5, dtype=torch.float64)
    mean = x.mean((2, 3))
    hidden = (mean @ layer.fc1.weight[:, :, 0, 0].T + layer.fc1.bias).clamp(min=0)
    weight = 1 / (1 + (-(hidden @ layer.fc2.weight[:, :, 0, 0].T + layer.fc2.bias)).exp())
    torch.testing.assert_close(layer(x), x * weight[:, :, None, None])


def test_the_stride_moves_to_the_first_convolution() -> None:
    def strides(stride_at: str, last_stride: int = 2) -> list[int]:
        with torch.device("meta"):
            block = ResNet50(stride_at=stride_at, last_stride=last_stride).layer4[0]
        assert block.downsample is not None
        layers = (block.conv1, block.conv2, block.conv3, block.downsample[0])
        return [layer.stride[0] for layer in layers]

    assert strides("3x3") == [1, 2, 1, 2]
    assert strides("1x1") == [2, 1, 1, 2]
    assert strides("1x1", last_stride=1) == [1, 1, 1, 1]


def test_basic_blocks_have_no_other_place_for_the_stride() -> None:
    message = "needs a network with bottlenecks: resnet50, resnet101 or resnet152"
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        ResNet34(stride_at="1x1")
    with pytest.raises(ValueError, match=message):
        ResNetConfig(name="resnet18", stride_at="1x1")


def test_resnets_are_drawn_from_kaimings_normal() -> None:
    torch.manual_seed(0)
    network = ResNet18()
    assert network.conv1.weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.03)
    deep = network.layer4[1].conv2.weight
    assert deep.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert bool((network.layer4[1].bn2.weight == 1).all())


SMALL = [
    ({"name": "resnet18", "stem": "small"}, 16),
    ({"name": "se_resnet50", "variant": "seed"}, 32),
    ({"name": "mobilenet_v2", "stem": "small", "width_mult": 0.35}, 16),
    ({"name": "shufflenet_v2_x0_5", "stem": "small"}, 16),
    ({"name": "alexnet"}, 63),
    ({"name": "inception_v3"}, 75),
    ({"name": "torchvision", "model": "mnasnet0_5"}, 32),
]


@pytest.mark.parametrize(("backbone", "image_size"), SMALL, ids=label)
def test_gradients_reach_every_weight_of_one_channel_images(
    backbone: dict[str, Any], image_size: int
) -> None:
    network = build_on_meta(backbone, in_channels=1)
    images = torch.empty(2, 1, image_size, image_size)
    assert unused_parameters(network, images) == []


@pytest.mark.parametrize(("backbone", "image_size"), [SMALL[0], SMALL[2], SMALL[3]], ids=label)
def test_training_on_tiny_images(backbone: dict[str, Any], image_size: int) -> None:
    torch.manual_seed(0)
    network = build(backbone, in_channels=1)
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    fan_out = first.weight[:, 0].numel()
    assert first.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)
    network(torch.randn(4, 1, image_size, image_size)).square().mean().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert bool(weight.grad.isfinite().all()), name


def test_building_depends_on_the_seed_alone_and_sets_none() -> None:
    def draw(seed: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        return next(build({"name": "shufflenet_v2_x0_5"}).parameters()).detach(), torch.rand(3)

    assert all(torch.equal(a, b) for a, b in zip(draw(1), draw(1), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(draw(1), draw(2), strict=True))


@pytest.mark.parametrize(
    ("model", "node", "channels", "side"),
    [
        ("resnet18", None, 512, 7),
        ("resnet18", "layer3", 256, 14),
        ("vgg11", "features.5", 128, 56),
        ("squeezenet1_1", None, 512, 13),
        ("mobilenet_v3_small", None, 576, 7),
        ("vgg11", None, 512, 7),
        ("regnet_x_400mf", None, 400, 7),
        ("swin_t", None, 768, 7),  # gives maps by a permutation of its own
        ("maxvit_t", "blocks.0", 64, 56),  # a list of layers
    ],
)
def test_any_network_of_torchvision(model: str, node: str | None, channels: int, side: int) -> None:
    network = build_on_meta({"name": "torchvision", "model": model, "node": node})
    assert network.out_channels == channels
    assert shape_of(network, 224) == (1, channels, side, side)
    assert unused_parameters(network, torch.empty(1, 3, 224, 224)) == []


def test_torchvisions_network_is_torchvisions() -> None:
    network = TorchvisionNet(model="shufflenet_v2_x0_5").eval()
    ours = ShuffleNetV2x05().eval()
    ours.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(images), ours(images))
        assert torch.equal(copy.deepcopy(network)(images), ours(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet19"}, "no network of torchvision named 'resnet19'.*did you mean resnet1"),
        ({"model": "fcn_resnet50"}, "no network of torchvision named 'fcn_resnet50'"),
        ({"model": "zzzzzz"}, "there are alexnet, "),
        ({"model": "resnet18", "node": "layer5"}, "no layer of resnet18.*did you mean layer"),
        ({"model": "resnet18", "node": "fc"}, "no layer of resnet18 named 'fc'"),
        ({"model": "swin_t", "node": "features"}, r"\(1, 7, 7, 768\), which is no map"),
        ({"model": "vit_b_16"}, "vit_b_16 ends in tokens.*use deit_tiny"),
    ],
)
def test_torchvisions_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_on_meta({"name": "torchvision", **options})


def test_only_building_tells_the_positions_of_other_libraries_networks() -> None:
    assert TorchvisionConfig(name="torchvision", model="resnet18").num_positions(224) is None
    assert TimmConfig(name="timm", model="resnet18").num_positions(224) is None
