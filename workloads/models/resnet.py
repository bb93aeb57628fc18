"""ResNet-18 to -152 under torchvision's parameter names, without importing torchvision."""

from torch import Tensor, nn

from workloads.models.backbone import Backbone, init_convolutions


class ResNet(Backbone):
    """ResNet without its pooling and classifier, untrained; torchvision's parameter names.

    (B, in_channels, H, W) -> (B, 512 * expansion, H / 32, W / 32), rounded up; twice as large with
    `last_stride=1`, four times with the small stem.

    Args:
        in_channels: Channels of the images.
        last_stride: Stride of the last stage, both of its residual branch and of its shortcut. 1
            gives 14x14 maps at 224 px, as the GCP papers use.
        stride_at: Which convolution of a bottleneck strides: `3x3` is torchvision's ("v1.5"), `1x1`
            the paper's. For the networks with bottlenecks: 50 layers and more.
        stem: `imagenet` is a 7x7 convolution of stride 2 and a max-pooling, `small` a 3x3
            convolution of stride 1 for images of 28 to 64 pixels.

    Raises:
        ValueError: `stride_at="1x1"` where there is no bottleneck.

    References:
        He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016.
    """

    block: "type[BasicBlock] | type[Bottleneck]"
    num_blocks: tuple[int, int, int, int]

    def __init__(
        self,
        *,
        in_channels: int = 3,
        last_stride: int = 2,
        stride_at: str = "3x3",
        stem: str = "imagenet",
    ) -> None:
        super().__init__(out_channels=512 * self.block.expansion)
        small = stem == "small"
        self.conv1: nn.Module = first_convolution(in_channels, 64, small=small)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        channels, stages = 64, []
        strides = (1, 2, 2, last_stride)
        for width, blocks, stride in zip(
            (64, 128, 256, 512), self.num_blocks, strides, strict=True
        ):
            first = self.block(channels, width, stride, stride_at=stride_at)
            channels = width * self.block.expansion
            later = [self.block(channels, width, stride_at=stride_at) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(first, *later))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        init_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def first_convolution(in_channels: int, out_channels: int, *, small: bool) -> nn.Conv2d:
    """Return 7x7 of stride 2, or 3x3 of stride 1 for small images; without bias."""
    if small:
        return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return nn.Conv2d(in_channels, out_channels, 7, stride=2, padding=3, bias=False)


class ResidualBlock(nn.Module):
    """A residual branch and a shortcut: identity, or a strided 1x1 convolution with BN.

    A subclass makes the layers of its branch, then calls `add_shortcut`.

    (B, in_channels, H, W) -> (B, width * expansion, H / stride, W / stride), rounded up.
    """

    expansion: int
    downsample: nn.Module | None

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def add_shortcut(self, in_channels: int, width: int, stride: int) -> None:
        """Add the shortcut, last as in torchvision: optimizers know weights by their order."""
        self.downsample = None
        if stride != 1 or in_channels != width * self.expansion:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, width * self.expansion, 1, stride, bias=False),
                nn.BatchNorm2d(width * self.expansion),
            )

    def residual(self, x: Tensor) -> Tensor:
        """Return the residual branch, before the sum and the last ReLU."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.residual(x) + shortcut)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions with BN, the first with the stride."""

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, stride: int = 1, *, stride_at: str = "3x3"
    ) -> None:
        if stride_at != "3x3":
            raise ValueError(
                "stride_at 1x1 needs a network with bottlenecks: resnet50, resnet101 or resnet152"
            )
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.add_shortcut(in_channels, width, stride)

    def residual(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolution with BN; `se` may weight the channels of their result."""

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int = 1, *, stride_at: str = "3x3"
    ) -> None:
        super().__init__()
        early, late = (stride, 1) if stride_at == "1x1" else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, width, 1, early, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, late, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.se: nn.Module = nn.Identity()
        self.add_shortcut(in_channels, width, stride)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.se(self.bn3(self.conv3(x)))


class ResNet18(ResNet):
    """ResNet of 18 layers; 512 channels."""

    block, num_blocks = BasicBlock, (2, 2, 2, 2)


class ResNet34(ResNet):
    """ResNet of 34 layers; 512 channels."""

    block, num_blocks = BasicBlock, (3, 4, 6, 3)


class ResNet50(ResNet):
    """ResNet of 50 layers; 2048 channels."""

    block, num_blocks = Bottleneck, (3, 4, 6, 3)


class ResNet101(ResNet):
    """ResNet of 101 layers; 2048 channels."""

    block, num_blocks = Bottleneck, (3, 4, 23, 3)


class ResNet152(ResNet):
    """ResNet of 152 layers; 2048 channels."""

    block, num_blocks = Bottleneck, (3, 8, 36, 3)
