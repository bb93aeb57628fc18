"""Networks of timm as backbones: maps, tokens, what is left out, mistakes."""

import sys
from typing import Any

import pytest
import torch
from torch import nn

from workloads.models.errors import ModelError
from workloads.models.shapes import meta_call, unused_parameters
from workloads.models.timm_net import TimmNet, count_prefix_tokens


@pytest.fixture
def timm() -> Any:
    return pytest.importorskip("timm", reason="timm is not installed")


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("model", "shape", "prefix_tokens"),
    [
        ("resnet18", (512, 7, 7), None),
        ("mobilenetv3_small_100", (576, 7, 7), None),
        ("vit_tiny_patch16_224", (197, 192), 1),
        ("deit_tiny_distilled_patch16_224", (198, 192), 2),
        ("levit_128s", (16, 384), 0),
    ],
)
def test_maps_and_tokens(model: str, shape: tuple[int, ...], prefix_tokens: int | None) -> None:
    with torch.device("meta"):
        network = TimmNet(model=model)
    assert tuple(meta_call(network, torch.empty(2, 3, 224, 224)).shape) == (2, *shape)
    assert network.tokens == (prefix_tokens is not None)
    assert network.prefix_tokens == (prefix_tokens or 0)
    assert network.out_channels == shape[-1 if network.tokens else 0]
    assert unused_parameters(network, torch.empty(2, 3, 224, 224)) == [
        name for name, weight in network.named_parameters() if not weight.requires_grad
    ]


def test_the_features_are_timms(timm: Any) -> None:
    torch.manual_seed(0)
    network = TimmNet(model="swin_tiny_patch4_window7_224", in_channels=1).eval()
    twin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, in_chans=1).eval()
    twin.load_state_dict(
        {name.removeprefix("net."): value for name, value in network.state_dict().items()}
    )
    images = torch.rand(1, 1, 224, 224)
    with torch.no_grad():
        expected = twin.forward_features(images).movedim(3, 1)
        assert torch.equal(network(images), expected)


@pytest.mark.usefixtures("timm")
def test_what_the_head_of_timm_alone_needs_is_left_out() -> None:
    with torch.device("meta"):
        network = TimmNet(model="mobilenetv3_small_100")
    assert not any("conv_head" in name for name, _ in network.named_parameters())


@pytest.mark.parametrize(("num_tokens", "prefix"), [(196, 0), (197, 1), (198, 2), (1, 0)])
def test_what_is_over_a_square_is_no_patch(num_tokens: int, prefix: int) -> None:
    assert count_prefix_tokens(nn.Identity(), num_tokens) == prefix


@pytest.mark.usefixtures("timm")
def test_a_vision_transformer_for_small_images() -> None:
    with torch.device("meta"):
        network = TimmNet(model="vit_tiny_patch16_224", image_size=64, in_channels=1)
    assert tuple(meta_call(network, torch.empty(1, 1, 64, 64)).shape) == (1, 17, 192)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet19"}, "no network of timm named 'resnet19'.*did you mean .*resnet18"),
        ({"model": "resnet18", "image_size": 64}, "resnet18 of timm takes images of any size"),
        ({"model": "crossvit_9_240"}, "crossvit_9_240 of timm gives no maps and no tokens"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ModelError, match=message):
        TimmNet(**options)


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match="needs the package timm, which is not installed"):
        TimmNet(model="resnet18")
