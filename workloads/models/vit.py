"""Vision transformers: DeiT, and the encoder that every token backbone here is made of.

Shape letters: B images, N tokens (with the class token), D width of a token.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workloads.models.backbone import Backbone

INIT_STD = 0.02
"""Of the truncated normal that linear layers, class token and position embedding start from."""


class DropPath(nn.Module):
    """Drop a residual branch of whole images while training (stochastic depth).

    The branch of an image is zero with probability `rate`, else divided by 1 - rate. Rate 0 draws
    no random number.

    References:
        Huang et al., Deep Networks with Stochastic Depth, ECCV 2016.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x_BND: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x_BND
        keep = 1 - self.rate
        return x_BND * (x_BND.new_empty(x_BND.shape[0], 1, 1).bernoulli_(keep) / keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}"


class Attention(nn.Module):
    """Multi-head self-attention, (B, N, D) to (B, N, D); one matrix for queries, keys, values."""

    def __init__(self, dim: int, *, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BND: Tensor) -> Tensor:
        heads = self.qkv(x_BND).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        return self.proj(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Linear -> GELU -> Linear on every token."""

    def __init__(self, dim: int, *, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x_BND: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x_BND)))


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        norm_eps: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads=num_heads, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = MLP(dim, hidden=int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BND: Tensor) -> Tensor:
        x_BND = x_BND + self.drop_path(self.attn(self.norm1(x_BND)))
        return x_BND + self.drop_path(self.mlp(self.norm2(x_BND)))


class TokenEncoder(Backbone):
    """What DeiT and SoT share: class token, transformer blocks, final norm.

    A subclass turns images into visual tokens (`embed`) and sets `pos_embed` (1, N, D), as a
    parameter where it is learned and as a buffer where it is fixed.

    Args:
        image_size: Pixels per side of the images.
        stride: Pixels per side of one visual token.
        dim: D.
        depth: Blocks.
        num_heads: Attention heads; D is a multiple of it.
        mlp_ratio: Hidden width of the MLPs over D.
        qkv_bias: Whether queries, keys and values have a bias.
        norm_eps: Of every LayerNorm.
        drop_path: Rate of stochastic depth at the last block; it grows linearly from 0.

    Raises:
        ValueError: `image_size` is no multiple of `stride`, or `dim` none of `num_heads`.
    """

    pos_embed: Tensor

    def __init__(
        self,
        *,
        image_size: int,
        stride: int,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        norm_eps: float,
        drop_path: float,
    ) -> None:
        if image_size % stride:
            raise ValueError(
                f"image_size {image_size} is no multiple of {stride}, the side of a token in "
                f"pixels; the next larger is {image_size + -image_size % stride}"
            )
        if dim % num_heads:
            raise ValueError(f"a width of {dim} does not divide into {num_heads} heads")
        super().__init__(out_channels=dim, tokens=True, prefix_tokens=1)
        self.image_size = image_size
        self.num_tokens = 1 + (image_size // stride) ** 2
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.blocks = nn.Sequential(
            *[
                Block(
                    dim,
                    num_heads=num_heads,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    norm_eps=norm_eps,
                    drop_path=drop_path * index / max(1, depth - 1),
                )
                for index in range(depth)
            ]
        )
        self.norm = nn.LayerNorm(dim, eps=norm_eps)

    def embed(self, images: Tensor) -> Tensor:
        """Return the visual tokens: (B, C, H, W) to (B, N - 1, D)."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if height != self.image_size or width != self.image_size:
            size = self.image_size
            raise ValueError(
                f"images of {height}x{width} pixels, but the backbone's positions are made for "
                f"{size}x{size}: resize the images, or build it with their size as image_size"
            )
        x_BND = self.embed(images)
        class_B1D = self.cls_token.expand(x_BND.shape[0], -1, -1)
        x_BND = torch.cat([class_B1D, x_BND], dim=1) + self.pos_embed
        return self.norm(self.blocks(x_BND))

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that are positions or tokens and not weights, as DeiT does."""
        return {"cls_token", "pos_embed"}

    def init_encoder(self) -> None:
        """Draw the linear layers and the class token; convolutions keep torch's own draw."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=INIT_STD)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.cls_token, std=INIT_STD)


class PatchEmbedding(nn.Module):
    """Map each patch to a token by one linear map: (B, C, H, W) to (B, patches, D)."""

    def __init__(self, in_channels: int, dim: int, *, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class DeiT(TokenEncoder):
    """DeiT without its distillation token, untrained; parameter names of the published files.

    (B, in_channels, S, S) -> tokens (B, 1 + (S / P)^2, D) after the final norm, the class token
    first; S is `image_size`, P `patch_size`.

    Args:
        in_channels: Channels of the images.
        image_size: Pixels per side that the learned position embedding is made for.
        patch_size: Pixels per side of a patch; divides `image_size`.
        dim: D.
        depth: Blocks.
        num_heads: Attention heads.
        drop_path: Rate of stochastic depth at the last block; 0.1 in DeiT's recipe.

    Raises:
        ValueError: `image_size` is no multiple of `patch_size`; in a forward pass, images of
            another size than `image_size`.

    References:
        Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021.
        Touvron et al., Training Data-efficient Image Transformers, ICML 2021.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        image_size: int = 224,
        patch_size: int = 16,
        dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(
            image_size=image_size,
            stride=patch_size,
            dim=dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=4,
            qkv_bias=True,
            norm_eps=1e-6,
            drop_path=drop_path,
        )
        self.patch_embed = PatchEmbedding(in_channels, dim, patch_size=patch_size)
        self.pos_embed = nn.Parameter(torch.empty(1, self.num_tokens, dim))
        self.init_encoder()
        nn.init.trunc_normal_(self.pos_embed, std=INIT_STD)

    def embed(self, images: Tensor) -> Tensor:
        return self.patch_embed(images)


def deit_tiny(
    *, in_channels: int = 3, image_size: int = 224, patch_size: int = 16, drop_path: float = 0.0
) -> DeiT:
    """Build DeiT-Ti: 192 wide, 3 heads."""
    return DeiT(
        in_channels=in_channels,
        image_size=image_size,
        patch_size=patch_size,
        dim=192,
        num_heads=3,
        drop_path=drop_path,
    )


def deit_small(
    *, in_channels: int = 3, image_size: int = 224, patch_size: int = 16, drop_path: float = 0.0
) -> DeiT:
    """Build DeiT-S: 384 wide, 6 heads."""
    return DeiT(
        in_channels=in_channels,
        image_size=image_size,
        patch_size=patch_size,
        dim=384,
        num_heads=6,
        drop_path=drop_path,
    )


def deit_base(
    *, in_channels: int = 3, image_size: int = 224, patch_size: int = 16, drop_path: float = 0.0
) -> DeiT:
    """Build DeiT-B: 768 wide, 12 heads."""
    return DeiT(
        in_channels=in_channels,
        image_size=image_size,
        patch_size=patch_size,
        dim=768,
        num_heads=12,
        drop_path=drop_path,
    )
