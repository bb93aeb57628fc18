"""The backbones: one small class for each family, told apart by `name`.

Every field is a keyword of the backbone of that name in `workloads.models`, with the same default.
`num_positions` says, without building anything, how many positions a pooling will see.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from workloads.config.base import Config

Stem = Literal["imagenet", "small"]
"""`small` keeps the resolution at the network's entrance, for images of 28 to 64 pixels: the first
convolution has stride 1 (3x3 where it was 7x7) and the max-pooling after it is left out."""

Window = tuple[int, int, int]
"""Kernel, stride and padding of one sliding window."""


class BackboneBase(Config):
    """What every backbone's config can say."""

    has_class_token: ClassVar[bool] = False

    @property
    def norms_last_map(self) -> bool:
        """Whether a batch norm averages over the positions of the features."""
        return True

    def num_positions(self, image_size: int) -> int | None:
        """Return the positions of the features of a square image.

        Zero if the image is too small for the network; None if only building it tells.
        """
        raise NotImplementedError


def _square(image_size: int, windows: list[Window]) -> int:
    side = image_size
    for kernel, stride, padding in windows:
        side = max(0, (side + 2 * padding - kernel) // stride + 1)
    return side * side


class SmallResNetConfig(BackboneBase):
    """A residual network for images of 8 to 64 pixels: 3x3 stem, no max-pooling."""

    name: Literal["small_resnet"] = "small_resnet"
    width: int = Field(default=32, ge=4, le=512)
    """Channels of the first stage; each later stage doubles them."""
    blocks: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(
        default=(1, 1), min_length=1, max_length=4
    )
    """Residual blocks per stage; every stage after the first halves the map."""
    last_stride: Literal[1, 2] = 2
    """Stride of the last stage; 1 keeps its map twice as large (more positions to pool)."""

    @property
    def out_channels(self) -> int:
        """Channels of the features."""
        return self.width << (len(self.blocks) - 1)

    def num_positions(self, image_size: int) -> int:
        later = [2] * (len(self.blocks) - 1)
        strides = [*later[:-1], self.last_stride] if later else []
        return _square(image_size, [(1, stride, 0) for stride in strides])


def _stem_windows(stem: Stem) -> list[Window]:
    return [(7, 2, 3), (3, 2, 1)] if stem == "imagenet" else []


class ResNetConfig(BackboneBase):
    """ResNet of 18 to 152 layers; torchvision's parameter names."""

    name: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    last_stride: Literal[1, 2] = 2
    """Stride of the last stage; 1 gives 14x14 maps at 224 px, as the GCP papers use."""
    stride_at: Literal["3x3", "1x1"] = "3x3"
    """Which convolution of a bottleneck strides: 3x3 is "v1.5" (torchvision), 1x1 the original."""
    stem: Stem = "imagenet"

    @model_validator(mode="after")
    def _stride_needs_a_bottleneck(self) -> "ResNetConfig":
        if self.stride_at == "1x1" and self.name in ("resnet18", "resnet34"):
            raise ValueError(
                "stride_at: 1x1 needs a network with bottlenecks: resnet50, resnet101 or resnet152"
            )
        return self

    def num_positions(self, image_size: int) -> int:
        stages: list[Window] = [(1, 2, 0), (1, 2, 0), (1, self.last_stride, 0)]
        return _square(image_size, [*_stem_windows(self.stem), *stages])


class SEResNetConfig(BackboneBase):
    """ResNet-50 with squeeze-and-excitation."""

    name: Literal["se_resnet50"]
    last_stride: Literal[1, 2] = 2
    """Stride of the last stage; 1 gives 14x14 maps at 224 px, as the GCP papers use."""
    variant: Literal["seed", "standard"] = "standard"
    """`standard`: SE in every block, 7x7 stem. `seed`: SE in the last block of stages 3 and 4 and
    a stem of three 3x3 convolutions, as in the TPAMI 2023 paper's code."""
    stem: Stem = "imagenet"

    def num_positions(self, image_size: int) -> int:
        stages: list[Window] = [(1, 2, 0), (1, 2, 0), (1, self.last_stride, 0)]
        return _square(image_size, [*_stem_windows(self.stem), *stages])


class MobileNetV2Config(BackboneBase):
    """torchvision's MobileNetV2; 1280 channels at stride 32."""

    name: Literal["mobilenet_v2"]
    width_mult: float = Field(default=1.0, gt=0, le=4)
    stem: Stem = "imagenet"
    """`small` sets the first two strides to 1."""

    def num_positions(self, image_size: int) -> int:
        strides = 5 if self.stem == "imagenet" else 3
        return _square(image_size, [(3, 2, 1)] * strides)


class ShuffleNetV2Config(BackboneBase):
    """torchvision's ShuffleNetV2; 1024 channels (x2_0: 2048) at stride 32."""

    name: Literal[
        "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0"
    ]
    stem: Stem = "imagenet"

    def num_positions(self, image_size: int) -> int:
        strides = 5 if self.stem == "imagenet" else 3
        return _square(image_size, [(3, 2, 1)] * strides)


class VGGConfig(BackboneBase):
    """torchvision's VGG-16, with batch normalisation or without; 512 channels."""

    name: Literal["vgg16", "vgg16_bn"]
    last_pool: bool = True
    """False drops the last max-pooling: 14x14 maps at 224 px, as the GCP papers use."""

    @property
    def norms_last_map(self) -> bool:
        return self.name == "vgg16_bn" and not self.last_pool

    def num_positions(self, image_size: int) -> int:
        return _square(image_size, [(2, 2, 0)] * (5 if self.last_pool else 4))


class AlexNetConfig(BackboneBase):
    """torchvision's AlexNet; 256 channels."""

    name: Literal["alexnet"]
    last_pool: bool = True
    """False drops the last max-pooling: 13x13 maps at 224 px, as the GCP papers use."""

    @property
    def norms_last_map(self) -> bool:
        return False

    def num_positions(self, image_size: int) -> int:
        last: list[Window] = [(3, 2, 0)] if self.last_pool else []
        return _square(image_size, [(11, 4, 2), (3, 2, 0), (3, 2, 0), *last])


class DenseNetConfig(BackboneBase):
    """torchvision's DenseNet, with the ReLU after its last batch normalisation."""

    name: Literal["densenet121", "densenet161", "densenet169", "densenet201"]
    stem: Stem = "imagenet"

    def num_positions(self, image_size: int) -> int:
        return _square(image_size, [*_stem_windows(self.stem), *[(2, 2, 0)] * 3])


class InceptionV3Config(BackboneBase):
    """torchvision's Inception-v3 up to Mixed_7c, without its auxiliary head; 2048 channels."""

    name: Literal["inception_v3"]

    def num_positions(self, image_size: int) -> int:
        windows = [(3, 2, 0), (3, 1, 0), (3, 2, 0), (3, 1, 0), (3, 2, 0), (3, 2, 0), (3, 2, 0)]
        return _square(image_size, windows)


class DeiTConfig(BackboneBase):
    """DeiT (ViT with 16-pixel patches); a class token and the visual tokens."""

    has_class_token: ClassVar[bool] = True

    name: Literal["deit_tiny", "deit_small", "deit_base"]
    image_size: int = Field(default=224, ge=8, le=1024)
    """Pixels per side that the position embedding is made for; images must have this size."""
    patch_size: int = Field(default=16, ge=1, le=64)
    """Pixels per side of a patch; divides `image_size`. 4 or less for images of 32 pixels."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Rate of stochastic depth at the last block; 0.1 in DeiT's recipe."""

    @model_validator(mode="after")
    def _patches_fit(self) -> "DeiTConfig":
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of patch_size "
                f"({self.patch_size})"
            )
        return self

    @property
    def norms_last_map(self) -> bool:
        return False

    def num_positions(self, image_size: int) -> int:
        return (image_size // self.patch_size) ** 2 if image_size == self.image_size else 0


class SwinConfig(BackboneBase):
    """torchvision's Swin-T; 768 channels at stride 32, as tokens.

    Takes images of 4 pixels and more, but makes one token of any below 36.
    """

    name: Literal["swin_tiny"]
    drop_path: float = Field(default=0.2, ge=0, lt=1)
    """Rate of stochastic depth at the last block."""

    @property
    def norms_last_map(self) -> bool:
        return False

    def num_positions(self, image_size: int) -> int:
        return _square(image_size, [(4, 4, 0), *[(1, 2, 0)] * 3])


class SoTConfig(BackboneBase):
    """Second-order transformer: convolutional token stem, class token and visual tokens."""

    has_class_token: ClassVar[bool] = True

    name: Literal["sot_tiny", "sot_small", "sot_base"]
    image_size: int = Field(default=224, ge=16, le=1024, multiple_of=16)
    """Pixels per side that the position table is made for; images must have this size."""
    variant: Literal["dropcov", "sot"] = "dropcov"
    """Whose sizes: `dropcov` are those of DropCov's code (12 blocks, 240 / 384 / 768 wide), which
    its paper calls DeiT; `sot` those of SoT's (12 / 14 / 24 blocks, 240 / 384 / 528 wide)."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Rate of stochastic depth at the last block; 0.1 in the published recipe."""

    @property
    def norms_last_map(self) -> bool:
        return False

    def num_positions(self, image_size: int) -> int:
        return (image_size // 16) ** 2 if image_size == self.image_size else 0


class TorchvisionConfig(BackboneBase):
    """Any classification network of torchvision, up to its pooling."""

    name: Literal["torchvision"]
    model: str = Field(min_length=1)
    """Name for `torchvision.models.get_model`."""
    node: str | None = None
    """Name of the layer whose maps are pooled; null takes the last that gives maps."""

    def num_positions(self, image_size: int) -> None:
        return None


class TimmConfig(BackboneBase):
    """Any network of timm that gives features (needs the package timm)."""

    name: Literal["timm"]
    model: str = Field(min_length=1)
    """Name for `timm.create_model`."""
    image_size: int | None = Field(default=None, ge=8, le=1024)
    """For networks made for images of one size, as vision transformers are: pixels per side; null
    is the network's own."""

    def num_positions(self, image_size: int) -> None:
        return None


BackboneConfig = Annotated[
    SmallResNetConfig
    | ResNetConfig
    | SEResNetConfig
    | MobileNetV2Config
    | ShuffleNetV2Config
    | VGGConfig
    | AlexNetConfig
    | DenseNetConfig
    | InceptionV3Config
    | DeiTConfig
    | SwinConfig
    | SoTConfig
    | TorchvisionConfig
    | TimmConfig,
    Field(discriminator="name"),
]
