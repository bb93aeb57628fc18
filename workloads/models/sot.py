"""Second-order transformers: a convolutional token stem before a vision transformer.

Shape letters: B images, N visual tokens, D width of a token.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from workloads.models.vit import TokenEncoder

STEM_CHANNELS, GROWTH, BOTTLENECK, STAGE_CHANNELS = 64, 16, 32, 128
STAGES, LAYERS_PER_STAGE = 3, 6


class Shape(NamedTuple):
    """Sizes of one published network."""

    dim: int
    depth: int
    num_heads: int
    mlp_ratio: float


SHAPES = {
    ("dropcov", "tiny"): Shape(240, 12, 4, 2.5),
    ("dropcov", "small"): Shape(384, 12, 6, 4),
    ("dropcov", "base"): Shape(768, 12, 12, 4),
    ("sot", "tiny"): Shape(240, 12, 4, 2.5),
    ("sot", "small"): Shape(384, 14, 6, 3.5),
    ("sot", "base"): Shape(528, 24, 8, 3),
}
"""By variant and size: SoT's own networks, and those the DropCov paper calls DeiT + DropCov."""


class DenseLayer(nn.Module):
    """Append 16 channels: BN -> ReLU -> 1x1 convolution to 32 -> BN -> ReLU -> 3x3 to 16."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, BOTTLENECK, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK)
        self.conv2 = nn.Conv2d(BOTTLENECK, GROWTH, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        new = self.conv1(self.relu(self.norm1(maps)))
        return torch.cat([maps, self.conv2(self.relu(self.norm2(new)))], dim=1)


class TokenStem(nn.Module):
    """DenseNet-style token embedding: (B, in_channels, H, W) to (B, H/16 * W/16, D).

    A 3x3 convolution and a max-pooling, then three stages, each of six dense layers, a BN
    without ReLU, a 1x1 convolution to 128 channels and an average pooling of 2; last a 1x1
    convolution to D.
    """

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, STEM_CHANNELS, 3, padding=1),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        stages = []
        channels = STEM_CHANNELS
        for _ in range(STAGES):
            wide = channels + LAYERS_PER_STAGE * GROWTH
            stages.append(
                nn.Sequential(
                    *[DenseLayer(c) for c in range(channels, wide, GROWTH)],
                    nn.BatchNorm2d(wide),
                    nn.Conv2d(wide, STAGE_CHANNELS, 1, bias=False),
                    nn.AvgPool2d(2),
                )
            )
            channels = STAGE_CHANNELS
        self.stages = nn.Sequential(*stages)
        self.projection = nn.Conv2d(channels, dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.projection(self.stages(self.stem(images))).flatten(2).transpose(1, 2)


class SoT(TokenEncoder):
    """Second-order transformer without its head, untrained.

    (B, in_channels, S, S) -> tokens (B, 1 + (S / 16)^2, D) after the final norm, the class token
    first; S is `image_size`. The position table is a fixed sinusoid, a buffer. With the head
    `cross_cov` and the class token's classifier it is the published network.

    Args:
        in_channels: Channels of the images.
        image_size: Pixels per side, a multiple of 16.
        shape: Width, depth, heads and MLP ratio; the published ones are in `SHAPES`.
        drop_path: Rate of stochastic depth at the last block.

    Raises:
        ValueError: `image_size` is no multiple of 16; in a forward pass, images of another size.

    References:
        Xie et al., SoT: Delving Deeper into Classification Head for Transformer, 2021.
        Wang et al., DropCov, NeurIPS 2022: its "DeiT" is this network, with the stem.

    Deviation:
        The published code makes 14 x 14 tokens of 224 pixels, or of 112 with one pooling less.
        We make one token of 16 x 16 pixels at every size.
    """

    def __init__(
        self, *, shape: Shape, in_channels: int = 3, image_size: int = 224, drop_path: float = 0.0
    ) -> None:
        super().__init__(
            image_size=image_size,
            stride=2 ** (STAGES + 1),
            **shape._asdict(),
            qkv_bias=False,
            norm_eps=1e-5,
            drop_path=drop_path,
        )
        self.visual_tokens = TokenStem(in_channels, shape.dim)
        self.register_buffer("pos_embed", sinusoid_table(self.num_tokens, shape.dim)[None])
        self.init_encoder()

    def embed(self, images: Tensor) -> Tensor:
        return self.visual_tokens(images)


def sinusoid_table(num_positions: int, dim: int) -> Tensor:
    """Return the (num_positions, dim) table of sin and cos at 10000^(-2i / dim).

    Column 2i is sin(p / 10000^(2i / dim)) of position p, column 2i + 1 its cosine.

    References:
        Vaswani et al., Attention Is All You Need, NeurIPS 2017.
    """
    position = torch.arange(num_positions, dtype=torch.float64)[:, None]
    frequency = 10000 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = position * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1).float()


def sot_tiny(
    *,
    in_channels: int = 3,
    image_size: int = 224,
    variant: str = "dropcov",
    drop_path: float = 0.0,
) -> SoT:
    """Build the tiny SoT, the same in both papers."""
    shape = SHAPES[variant, "tiny"]
    return SoT(shape=shape, in_channels=in_channels, image_size=image_size, drop_path=drop_path)


def sot_small(
    *,
    in_channels: int = 3,
    image_size: int = 224,
    variant: str = "dropcov",
    drop_path: float = 0.0,
) -> SoT:
    """Build the small SoT: 12 blocks in DropCov's code, 14 with thinner MLPs in SoT's."""
    shape = SHAPES[variant, "small"]
    return SoT(shape=shape, in_channels=in_channels, image_size=image_size, drop_path=drop_path)


def sot_base(
    *,
    in_channels: int = 3,
    image_size: int = 224,
    variant: str = "dropcov",
    drop_path: float = 0.0,
) -> SoT:
    """Build the base SoT: 768 wide in DropCov's code, 528 wide with 24 blocks in SoT's."""
    shape = SHAPES[variant, "base"]
    return SoT(shape=shape, in_channels=in_channels, image_size=image_size, drop_path=drop_path)
