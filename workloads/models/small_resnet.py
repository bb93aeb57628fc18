"""A residual network for small images."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from workloads.models.backbone import Backbone, init_convolutions


class SmallResNet(Backbone):
    """Residual network for images of 8 to 64 pixels: 3x3 stem, no max-pooling.

    (B, in_channels, H, W) -> (B, width * 2^(S-1), H / 2^(S-1), W / 2^(S-1)) for S stages.

    Args:
        in_channels: Channels of the images.
        width: Channels of the first stage; each later stage doubles them.
        blocks: Residual blocks per stage; every stage after the first halves the map.
        last_stride: Stride of the last stage; 1 keeps its map twice as large. A network of one
            stage has stride 1 in any case.

    References:
        He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        width: int = 32,
        blocks: Sequence[int] = (1, 1),
        last_stride: int = 2,
    ) -> None:
        super().__init__(out_channels=width * 2 ** (len(blocks) - 1))
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        stages, channels = [], width
        for stage, num_blocks in enumerate(blocks):
            stride = 1 if stage == 0 else last_stride if stage == len(blocks) - 1 else 2
            out_channels = width * 2**stage
            stage_blocks = [ResidualBlock(channels, out_channels, stride)]
            for _ in range(num_blocks - 1):
                stage_blocks.append(ResidualBlock(out_channels, out_channels, 1))
            stages.append(nn.Sequential(*stage_blocks))
            channels = out_channels
        self.stages = nn.Sequential(*stages)
        init_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(self.stem(images))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BN, and a shortcut: identity, or a strided 1x1 with BN."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        return F.relu(residual + self.shortcut(x), inplace=True)
