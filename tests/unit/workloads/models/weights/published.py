"""Networks put together as published code does it: their names, and their logits.

Trunks are torchvision's; heads are written out from the formulas. Shape letters: B images,
D reduced channels, M positions.
"""

import torch
import torchvision
from torch import Tensor, nn

CLASSES = 5
WIDTH = 8
"""Reduced channels."""


def covariance(x_BDM: Tensor) -> Tensor:
    centred = x_BDM - x_BDM.mean(2, keepdim=True)
    return torch.einsum("bdm,bem->bde", centred, centred) / x_BDM.shape[2]


def isqrt(x_BDM: Tensor, num_iters: int = 5) -> Tensor:
    sigma = covariance(x_BDM.double())
    eye = torch.eye(sigma.shape[1], dtype=sigma.dtype)
    trace = torch.einsum("bdd->b", sigma)[:, None, None]
    y, z = sigma / trace, eye.expand_as(sigma)
    for _ in range(num_iters):
        t = (3 * eye - z @ y) / 2
        y, z = y @ t, t @ z
    return (y * trace.sqrt()).to(x_BDM.dtype)


def triangle(matrix: Tensor, order: str = "upper_rows") -> Tensor:
    size = matrix.shape[1]
    places = [(i, j) for i in range(size) for j in range(i, size)]
    if order == "upper_columns":
        places = [(i, j) for j in range(size) for i in range(j + 1)]
    return torch.stack([matrix[:, i, j] for i, j in places], dim=1)


def isqrt_vector(maps: Tensor) -> Tensor:
    return triangle(isqrt(maps.flatten(2)))


def covariance_vector(maps: Tensor) -> Tensor:
    return triangle(covariance(maps.flatten(2)))


def mean_vector(maps: Tensor) -> Tensor:
    return maps.mean((2, 3))


def conv_bn(in_channels: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, WIDTH, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(WIDTH), activation())


def linear(width: int | None = None) -> nn.Linear:
    return nn.Linear(WIDTH * (WIDTH + 1) // 2 if width is None else width, CLASSES)


def trunk(name: str, **options) -> nn.Module:
    """torchvision's network; `init_weights=False` where drawing them takes long."""
    return getattr(torchvision.models, name)(weights=None, num_classes=CLASSES, **options)


def resnet(name: str, *, last_stride: int) -> nn.Module:
    net = trunk(name)
    first = net.layer4[0]
    strided = first.conv2 if hasattr(first, "conv3") else first.conv1
    strided.stride = first.downsample[0].stride = (last_stride, last_stride)
    return net


class Importance(nn.Module):
    """DropCov's ECA layer: of use in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)


class LayerReduceResNet(nn.Module):
    """fast-MPN-COV's mpncovresnet, GCP_Optimization's ResNets, DropCov's."""

    def __init__(self, name: str, *, capitals: bool = False, dropcov: bool = False) -> None:
        super().__init__()
        net = resnet(name, last_stride=1)
        channels = net.fc.in_features
        for child in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            self.add_module(child, getattr(net, child))
        if dropcov:
            self.eca_layer = Importance()
        self.names = (
            ("Layer_Reduce", "Layer_Reduce_BN")
            if capitals
            else (
                "layer_reduce",
                "layer_reduce_bn",
            )
        )
        self.add_module(self.names[0], nn.Conv2d(channels, WIDTH, 1, bias=False))
        self.add_module(self.names[1], nn.BatchNorm2d(WIDTH))
        self.fc = linear()
        self.pool = covariance_vector if dropcov else isqrt_vector

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        conv, norm = (getattr(self, name) for name in self.names)
        return self.fc(self.pool(norm(conv(x)).relu()))


class Reduced(nn.Module):
    """GCP_Optimization's MobileNetV2 and ShuffleNetV2."""

    def __init__(self, name: str, *, landscape: bool = False) -> None:
        super().__init__()
        net = trunk(name)
        if name == "mobilenet_v2":
            channels = 1280
            layers = list(net.features)
            if landscape:
                self.conv1, layers = layers[0], layers[1:]
            self.features = nn.Sequential(*layers)
        else:
            channels = net.fc.in_features
            for child in ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"):
                self.add_module(child, getattr(net, child))
        self.dimension_reduction = conv_bn(channels, nn.ReLU6)
        if name == "mobilenet_v2" and not landscape:
            self.classifier = nn.Sequential(nn.Dropout(0.2), linear())
        else:
            self.fc = linear()

    def forward(self, x: Tensor) -> Tensor:
        children = dict(self.named_children())
        last = children.pop("classifier", None) or children.pop("fc")
        reduce = children.pop("dimension_reduction")
        for child in children.values():
            x = child(x)
        return last(isqrt_vector(reduce(x)))


class Representation(nn.Module):
    """fast-MPN-COV's pooling module, with its own reduction or without."""

    def __init__(self, in_channels: int | None) -> None:
        super().__init__()
        if in_channels is not None:
            self.conv_dr_block = conv_bn(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        return isqrt_vector(self.conv_dr_block(x) if hasattr(self, "conv_dr_block") else x)


class Wrapper(nn.Module):
    """fast-MPN-COV's Basemodel: features, representation, classifier."""

    def __init__(
        self, features: nn.Module, channels: int | None, classifier: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.features = features
        self.representation = Representation(channels)
        self.classifier = linear() if classifier is None else classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.representation(self.features(x)))


def wrapped_resnet(name: str, *, last_stride: int = 2) -> Wrapper:
    """fast-MPN-COV's resnet; with a last stride of 1 its mpncovresnet, trained from scratch."""
    net = resnet(name, last_stride=last_stride)
    return Wrapper(nn.Sequential(*list(net.children())[:-2]), net.fc.in_features)


def wrapped_mpncov_resnet(name: str) -> Wrapper:
    net = resnet(name, last_stride=1)
    reduction = conv_bn(net.fc.in_features)
    return Wrapper(nn.Sequential(*list(net.children())[:-2], *reduction), None)


def fully_connected(width: int, *, dropout_first: bool = False) -> nn.Sequential:
    """VGG's three layers, or AlexNet's with a dropout before each; narrow."""
    if dropout_first:
        return nn.Sequential(
            nn.Dropout(), nn.Linear(width, 7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 6), nn.ReLU(),
            nn.Linear(6, CLASSES),
        )  # fmt: skip
    return nn.Sequential(
        nn.Linear(width, 7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 6), nn.ReLU(), nn.Dropout(),
        nn.Linear(6, CLASSES),
    )  # fmt: skip


def wrapped_vgg() -> Wrapper:
    net = torchvision.models.vgg16_bn(weights=None, init_weights=False)
    vector = WIDTH * (WIDTH + 1) // 2
    return Wrapper(net.features[:-1], 512, fully_connected(vector))


def wrapped_alexnet() -> Wrapper:
    vector = WIDTH * (WIDTH + 1) // 2
    return Wrapper(trunk("alexnet").features[:-1], 256, fully_connected(vector, dropout_first=True))


def wrapped_densenet() -> Wrapper:
    features = trunk("densenet121").features
    features.add_module("last_relu", nn.ReLU())
    return Wrapper(features, 1024)


def wrapped_inception() -> Wrapper:
    net = trunk("inception_v3", init_weights=False)
    blocks = [
        child
        for name, child in net.named_children()
        if name not in ("AuxLogits", "avgpool", "dropout", "fc")
    ]
    return Wrapper(nn.Sequential(*blocks), 2048)


class Plain(nn.Module):
    """torchvision's VGG or AlexNet, with narrow fully connected layers."""

    def __init__(self, name: str) -> None:
        super().__init__()
        net = getattr(torchvision.models, name)
        net = net(weights=None, init_weights=False) if name.startswith("vgg") else net(weights=None)
        self.features, self.avgpool = net.features, net.avgpool
        width = net.classifier[0 if name.startswith("vgg") else 1].in_features
        self.classifier = fully_connected(width, dropout_first=name == "alexnet")

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


@torch.no_grad()
def randomise(net: nn.Module, seed: int = 0) -> nn.Module:
    """Draw all weights and statistics, so that a swapped or missed one shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if tensor.dim() > 1:  # keeps the size of the features through any depth
            fan_in = tensor[0].numel()
            tensor.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
        elif name.endswith("running_var") or (name.endswith("weight") and tensor.dim() == 1):
            tensor.uniform_(0.5, 1.0, generator=generator)
        else:
            tensor.uniform_(-0.2, 0.2, generator=generator)
    return net.eval()
