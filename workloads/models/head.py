"""The head of a GCP network: reduction, pooling, classifier."""

from collections.abc import Sequence

from torch import Tensor, nn

from workloads.models.backbone import init_convolutions
from workloads.pooling.base import GlobalPooling

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "none": nn.Identity,
}


class GCPHead(nn.Module):
    """Map features, maps (B, C, h, w) or tokens (B, P + N, C), to logits (B, num_classes).

    1x1 convolution without bias -> BN -> activation -> pooling -> one Linear. Nothing stands
    between the pooled vector and the Linear unless `hidden` or `dropout` asks for it.

    Tokens go through the same layers: N tokens are a map of N x 1. Of P prefix tokens the first
    is the class token, which has a Linear of its own.

    Args:
        in_channels: Channels of the features.
        num_classes: Width of the logits.
        pooling: Built for `reduced_channels`, or for `in_channels` without a reduction; it says
            how wide its vector is.
        reduced_channels: Channels after the reduction; None leaves the reduction out.
        activation: After the reduction's BN: `relu`, `relu6` or `none`.
        hidden: Widths of fully connected layers with ReLU before the classifier.
        dropout: Rate after each hidden layer; without any, before the classifier.
        class_token: With prefix tokens, whether the logits are the `sum` of both classifiers',
            those of the class token `only`, or `ignore` it.
        classifier_init: How the Linear layers are drawn: PyTorch's `default`, as in the GCP
            ResNets, or from the `normal` distribution of deviation 0.01 with zero biases, as in
            MobileNetV2 and VGG.
        prefix_tokens: P; 0 for maps.
        tokens: Whether the features are tokens.

    References:
        Li et al., Is Second-order Information Helpful for Large-scale Visual Recognition?,
        ICCV 2017, for the place and order of the layers.
        Xie et al., SoT: Delving Deeper into Classification Head for Transformer, 2021, for the
        sum of two classifiers.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        pooling: GlobalPooling,
        reduced_channels: int | None = 32,
        activation: str = "relu",
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        class_token: str = "sum",
        classifier_init: str = "default",
        prefix_tokens: int = 0,
        tokens: bool = False,
    ) -> None:
        super().__init__()
        pooled = in_channels if reduced_channels is None else reduced_channels
        if pooling.in_channels != pooled:
            raise ValueError(f"the pooling takes {pooling.in_channels} channels, not {pooled}")
        self.tokens, self.prefix_tokens = tokens, prefix_tokens
        class_token = class_token if prefix_tokens else "ignore"
        self.token_classifier: nn.Linear | None = None
        if class_token != "ignore":
            self.token_classifier = nn.Linear(in_channels, num_classes)
        self.reduction: nn.Module = nn.Identity()
        self.pooling: GlobalPooling | None = None
        self.hidden: nn.Module = nn.Identity()
        self.classifier: nn.Linear | None = None
        if class_token != "only":
            if reduced_channels is not None:
                self.reduction = nn.Sequential(
                    nn.Conv2d(in_channels, reduced_channels, 1, bias=False),
                    nn.BatchNorm2d(reduced_channels),
                    _activation(activation),
                )
                init_convolutions(self.reduction)
            self.pooling = pooling
            self.hidden = _hidden_layers(pooling.out_features, hidden, dropout)
            width = hidden[-1] if hidden else pooling.out_features
            self.classifier = nn.Linear(width, num_classes)
        if classifier_init == "normal":
            for layers in (self.hidden, self.classifier, self.token_classifier):
                _init_normal(layers)

    def maps(self, features: Tensor) -> Tensor:
        """Return features as maps (B, C, h, w); N visual tokens are a map of N x 1."""
        if not self.tokens:
            return features
        return features[:, self.prefix_tokens :].transpose(1, 2).unsqueeze(3)

    def forward(self, features: Tensor) -> Tensor:
        logits = []
        if self.pooling is not None:
            vector = self.pooling(self.reduction(self.maps(features)))
            logits.append(self.classifier(self.hidden(vector)))
        if self.token_classifier is not None:
            logits.append(self.token_classifier(features[:, 0]))
        return logits[0] if len(logits) == 1 else logits[0] + logits[1]


def _activation(name: str) -> nn.Module:
    return nn.Identity() if name == "none" else ACTIVATIONS[name](inplace=True)


def _hidden_layers(width: int, hidden: Sequence[int], dropout: float) -> nn.Module:
    layers: list[nn.Module] = []
    for wide in hidden:
        layers += [nn.Linear(width, wide), nn.ReLU(inplace=True)]
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = wide
    if not hidden and dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers) if layers else nn.Identity()


def _init_normal(layers: nn.Module | None) -> None:
    for layer in layers.modules() if layers is not None else ():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
