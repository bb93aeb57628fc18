"""Which images a network is trained and judged on. One class per source, told apart by `name`.

A source says where images are; what a network sees of them (`images`) and how they are varied
(`augment`) stands beside it in the training's config, so that the same images in another form
give the same numbers. `usual_images` and `usual_augment` are what stands there if nothing is said.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from workloads.config.base import Config, Location
from workloads.config.images import (
    AugmentConfig,
    ImagesConfig,
    PadCropConfig,
    RandomResizedCropConfig,
)

_FOLDER_AUGMENT = AugmentConfig(crop=RandomResizedCropConfig(name="random_resized_crop"), flip=0.5)


def _as_it_is(size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> ImagesConfig:
    """Return the form of small images that are used in their own size."""
    return ImagesConfig(size=size, resize=None, mean=mean, std=std)


class SourceBase(Config):
    """What every source's config can say."""

    in_channels: ClassVar[int] = 3
    num_classes: ClassVar[int | None] = None
    """Where the source's name says it; None where only the images do."""
    white: ClassVar[int] = 255
    """The byte that stands for white."""
    usual_images: ClassVar[ImagesConfig] = ImagesConfig()
    usual_augment: ClassVar[AugmentConfig] = _FOLDER_AUGMENT
    moved_keys = {  # noqa: RUF012 - a ClassVar of the base
        "augment": "augment, beside data; for none, augment.crop=centre_crop augment.flip=0",
        "image_size": "images.size",
        "resize_size": "images.resize",
    }


class PathSource(SourceBase):
    """A source that is found under a path."""

    path: Location
    """Where the images are, as the cluster's nodes see it."""
    loader_workers: int = Field(default=0, ge=0, le=64)
    """Processes per rank that decode images; 0 decodes in the training process."""


class DigitsConfig(SourceBase):
    """scikit-learn's 1,797 real 8x8 images of hand-written digits; a fixed, stratified split."""

    in_channels: ClassVar[int] = 1
    num_classes: ClassVar[int | None] = 10
    white: ClassVar[int] = 16
    usual_images: ClassVar[ImagesConfig] = _as_it_is(8, (0.3053,), (0.3760,))
    usual_augment: ClassVar[AugmentConfig] = AugmentConfig(
        crop=PadCropConfig(name="pad_crop", padding=1)
    )

    name: Literal["digits"] = "digits"
    val_fraction: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of each class held out for validation; the split does not depend on the seed."""


class FashionMnistConfig(SourceBase):
    """Fashion-MNIST: 60,000 training and 10,000 test images of 28x28, as IDX files."""

    in_channels: ClassVar[int] = 1
    num_classes: ClassVar[int | None] = 10
    usual_images: ClassVar[ImagesConfig] = _as_it_is(28, (0.2860,), (0.3530,))
    usual_augment: ClassVar[AugmentConfig] = AugmentConfig(
        crop=PadCropConfig(name="pad_crop", padding=2), flip=0.5
    )

    name: Literal["fashion_mnist"]
    path: str = "/usr/share/datasets/fashion-mnist"
    """The folder of the four IDX files, packed with gzip or not; Debian's package by default."""


class CifarConfig(SourceBase):
    """CIFAR: 50,000 training and 10,000 test images of 32x32."""

    usual_images: ClassVar[ImagesConfig] = _as_it_is(
        32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    )
    usual_augment: ClassVar[AugmentConfig] = AugmentConfig(
        crop=PadCropConfig(name="pad_crop", padding=4), flip=0.5
    )

    path: Location
    """The folder that was unpacked from the published archive, Python's or the binary version."""


class Cifar10Config(CifarConfig):
    """CIFAR-10."""

    num_classes: ClassVar[int | None] = 10

    name: Literal["cifar10"]


class Cifar100Config(CifarConfig):
    """CIFAR-100 with its fine classes."""

    num_classes: ClassVar[int | None] = 100

    name: Literal["cifar100"]


class ImageFolderConfig(PathSource):
    """A folder of images: `train/<class>/*` and `val/<class>/*`; local, or `s3://bucket/folder`."""

    name: Literal["image_folder"]
    on_bad_image: Literal["fail", "skip"] = "fail"
    """A file that is no image or is cut short: name it and stop, or leave it out and count it."""
    check_images: bool = True
    """Decode every image once before training starts, so that a bad one is met then."""
    max_pixels: int = Field(default=50_000_000, ge=1)
    """Larger images are refused as bad: a small file can unpack to gigabytes."""

    @model_validator(mode="after")
    def _skip_needs_check(self) -> "ImageFolderConfig":
        if self.on_bad_image == "skip" and not self.check_images:
            raise ValueError("on_bad_image: skip needs check_images: true, or counts would drift")
        return self


class PackedConfig(PathSource):
    """Shards written by `gcpctl data pack`; local, or `s3://bucket/folder`."""

    name: Literal["packed"]
    variant: str | None = Field(default=None, min_length=1, max_length=100)
    """Which of the forms in the folder, such as `jpeg-256`; null takes the only one."""
    verify: bool = True
    """Compare every shard with its checksum before training starts."""


TORCHVISION_DATASETS = (
    "Caltech101",
    "Country211",
    "DTD",
    "EuroSAT",
    "FGVCAircraft",
    "Flowers102",
    "Food101",
    "GTSRB",
    "Imagenette",
    "OxfordIIITPet",
    "STL10",
    "StanfordCars",
    "SVHN",
)


class TorchvisionConfig(PathSource):
    """A dataset that torchvision reads, under the folder that torchvision calls `root`.

    Nothing is downloaded.
    """

    name: Literal["torchvision"]
    dataset: Literal[TORCHVISION_DATASETS]  # type: ignore[valid-type]
    """Name of the class in `torchvision.datasets`."""
    train_split: str | None = None
    val_split: str | None = None
    """Splits by torchvision's names; null takes the usual ones (train or trainval, and test)."""
    val_fraction: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of each class held out where a dataset has no splits of its own."""


class Cub200Config(PathSource):
    """Caltech-UCSD Birds-200-2011, as its archive unpacks: `images.txt`, `train_test_split.txt`."""

    num_classes: ClassVar[int | None] = 200

    name: Literal["cub200"]


DataConfig = Annotated[
    DigitsConfig
    | FashionMnistConfig
    | Cifar10Config
    | Cifar100Config
    | ImageFolderConfig
    | PackedConfig
    | TorchvisionConfig
    | Cub200Config,
    Field(discriminator="name"),
]

SOURCE_CONFIGS: dict[str, type[SourceBase]] = {
    "digits": DigitsConfig,
    "fashion_mnist": FashionMnistConfig,
    "cifar10": Cifar10Config,
    "cifar100": Cifar100Config,
    "image_folder": ImageFolderConfig,
    "packed": PackedConfig,
    "torchvision": TorchvisionConfig,
    "cub200": Cub200Config,
}


def fill_usual(document: dict[str, Any], *, sections: tuple[str, ...]) -> dict[str, Any]:
    """Return `document` with `images` and `augment` filled up from its source's usual ones.

    What is given stays. A crop given without a name is the source's usual one; a crop given by
    its name alone has its fields' own defaults.

    Args:
        document: A config as a mapping, with or without `data`.
        sections: Which of `images` and `augment` the config has.
    """
    source = _source(document.get("data"))
    if source is None:
        return document  # refused by the field itself, with its own words
    filled = dict(document)
    for section in sections:
        given = filled.get(section, {})
        if isinstance(given, dict):
            usual = getattr(source, f"usual_{section}").model_dump()
            if section == "images" and "size" in given and "resize" not in given:
                usual["resize"] = _usual_resize(given["size"], source)
            filled[section] = {**usual, **given}
            if isinstance(crop := given.get("crop"), dict) and "name" not in crop:
                filled[section]["crop"] = {**usual["crop"], **crop}
    return filled


def has_size_of_its_own(data: Any) -> bool:
    """Whether the images of a source, as a config's `data` names it, are small and of one size."""
    source = _source(data)
    return source is not None and source.usual_images.resize is None


def _source(data: Any) -> type[SourceBase] | None:
    name = data if isinstance(data, str) else _get(data, "name") or "digits"
    return SOURCE_CONFIGS.get(name if isinstance(name, str) else "")


def _usual_resize(size: Any, source: type[SourceBase]) -> Any:
    """Keep ImageNet's 256 to 224; small images of a fixed size are resized without a crop."""
    if not isinstance(size, int) or isinstance(size, bool):
        return None
    if source.usual_images.resize is None:
        return size if size != source.usual_images.size else None
    return round(size * 256 / 224)


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else getattr(value, key, None)
