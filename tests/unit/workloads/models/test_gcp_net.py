"""Networks: shapes, published parameter counts, strides, seeds, config parity."""

import inspect

import pytest
import torch
from torch import nn

from workloads.config.model import HeadConfig, ModelConfig
from workloads.config.pooling import IsqrtConfig
from workloads.config.validate import validate
from workloads.models.gcp_net import GCPNet, build_model, find_non_finite_layer
from workloads.models.head import GCPHead
from workloads.models.resnet import ResNet18
from workloads.models.small_resnet import SmallResNet
from workloads.pooling.average import AveragePooling


def digits_net(**head: object) -> GCPNet:
    config = validate(ModelConfig, {"head": head}, "test")
    return build_model(config, in_channels=1, num_classes=10)


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


def test_head_config_fields_are_the_keywords() -> None:
    parameters = inspect.signature(GCPHead).parameters
    keywords = {key: parameter.default for key, parameter in parameters.items()}
    for given_by_the_builder in ("in_channels", "num_classes", "prefix_tokens", "tokens"):
        del keywords[given_by_the_builder]
    del keywords["pooling"]  # a layer here, a config there
    fields = {key: field.default for key, field in HeadConfig.model_fields.items()}
    assert fields.pop("pooling") == IsqrtConfig()
    assert keywords == fields


def test_head_refuses_a_pooling_of_another_width() -> None:
    with pytest.raises(ValueError, match="the pooling takes 8 channels, not 32"):
        GCPHead(in_channels=64, num_classes=2, pooling=AveragePooling(in_channels=8))


@pytest.mark.parametrize(
    ("hidden", "dropout", "layers"),
    [
        ([], 0.0, []),
        ([], 0.2, ["Dropout"]),
        ([7, 5], 0.0, ["Linear", "ReLU", "Linear", "ReLU"]),
        ([7, 5], 0.5, ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout"]),
    ],
)
def test_hidden_layers_and_dropout(hidden: list[int], dropout: float, layers: list[str]) -> None:
    head = digits_net(reduced_channels=4, hidden=hidden, dropout=dropout).head
    assert [type(layer).__name__ for layer in head.hidden.children()] == layers
    linear = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [*hidden, 10]
    assert linear[0].in_features == 4 * 5 // 2


@pytest.mark.parametrize("activation", ["relu", "relu6", "none"])
def test_activation_of_the_reduction(activation: str) -> None:
    head = digits_net(reduced_channels=4, activation=activation).head.eval()
    with torch.no_grad():
        head.reduction[1].weight.fill_(100)
        features = torch.randn(2, 64, 3, 3)
        reduced = head.reduction[1](head.reduction[0](features))
        low = 0 if activation != "none" else -torch.inf
        high = 6 if activation == "relu6" else torch.inf
        assert torch.equal(head.reduction(features), reduced.clamp(low, high))
        assert reduced.min() < 0
        assert reduced.max() > 6


def test_the_classifier_is_drawn_as_asked() -> None:
    torch.manual_seed(0)
    default, normal = digits_net(hidden=[300]), digits_net(hidden=[300], classifier_init="normal")
    for layer in (normal.head.hidden[0], normal.head.classifier):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert not bool(layer.bias.any())
    bound = 300**-0.5
    assert default.head.classifier.weight.abs().max().item() == pytest.approx(bound, rel=0.05)
    assert bool(default.head.classifier.bias.any())


def tokens_head(class_token: str) -> GCPHead:
    torch.manual_seed(0)
    return GCPHead(
        in_channels=6,
        num_classes=3,
        pooling=AveragePooling(in_channels=6),
        reduced_channels=None,
        class_token=class_token,
        tokens=True,
        prefix_tokens=2,
    )


def test_class_token_and_visual_tokens() -> None:
    tokens = torch.randn(4, 2 + 5, 6)
    both = tokens_head("sum")
    first = both.token_classifier(tokens[:, 0])
    rest = both.classifier(tokens[:, 2:].mean(1))
    torch.testing.assert_close(both(tokens), first + rest)
    only = tokens_head("only")
    assert [name for name, _ in only.named_parameters()] == [
        "token_classifier.weight",
        "token_classifier.bias",
    ]
    only.load_state_dict(both.state_dict(), strict=False)
    torch.testing.assert_close(only(tokens), first)
    ignore = tokens_head("ignore")
    assert [name for name, _ in ignore.named_parameters()] == [
        "classifier.weight",
        "classifier.bias",
    ]
    ignore.load_state_dict(both.state_dict(), strict=False)
    torch.testing.assert_close(ignore(tokens), rest)


def test_maps_have_no_class_token_to_sum() -> None:
    assert digits_net(class_token="only").head.token_classifier is None


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
