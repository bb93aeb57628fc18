"""The data sources by their name in recipes, and the datasets made of them."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from workloads.config.data import DataConfig, ImageFolderConfig
from workloads.config.images import AugmentConfig, ImagesConfig
from workloads.config.train import Crops, ImageSizeStep
from workloads.data.bundle import DataBundle, EvalData, ImageDataset, PixelScale
from workloads.data.cifar import build_cifar10, build_cifar100
from workloads.data.cub200 import build_cub200
from workloads.data.datasets import eval_dataset, train_dataset
from workloads.data.digits import build_digits
from workloads.data.fashion_mnist import build_fashion_mnist
from workloads.data.image_folder import build_image_folder
from workloads.data.peers import ALONE, Peers
from workloads.data.store import SourceImages
from workloads.data.torchvision_sets import build_torchvision

__all__ = [
    "SOURCES",
    "DataBundle",
    "DataSource",
    "EvalData",
    "ImageDataset",
    "build_data",
    "build_eval_data",
    "open_source",
]


DataSource = Callable[..., SourceImages]
"""Finds the images of both splits from `peers` and the keywords of one config class.

It may share work out among the peers; each rank gets the whole of the data all the same. Missing
or broken images raise a DataError.
"""


def _build_packed(*, peers: Peers = ALONE, **options: Any) -> SourceImages:
    from workloads.data.packed import build_packed  # pyarrow, which no other source needs

    return build_packed(peers=peers, **options)


SOURCES: dict[str, DataSource] = {
    "digits": build_digits,
    "fashion_mnist": build_fashion_mnist,
    "cifar10": build_cifar10,
    "cifar100": build_cifar100,
    "image_folder": build_image_folder,
    "packed": _build_packed,
    "torchvision": build_torchvision,
    "cub200": build_cub200,
}


def open_source(config: DataConfig, *, peers: Peers = ALONE, **options: Any) -> SourceImages:
    """Find the images that `config` names, before anything is made of them.

    Args:
        options: Keywords of the source that no config has.

    Raises:
        DataError: If they are missing or broken.
    """
    return SOURCES[config.name](peers=peers, **config.model_dump(exclude={"name"}), **options)


def build_data(
    config: DataConfig,
    *,
    images: ImagesConfig,
    augment: AugmentConfig,
    progressive: Sequence[ImageSizeStep] = (),
    val_views: Crops = "centre",
    seed: int,
    peers: Peers = ALONE,
) -> DataBundle:
    """Build the datasets that `config` asks for; `seed` decides the augmentation only.

    Args:
        progressive: Sizes of the training images from epochs on; empty keeps `images.size`.
        val_views: "ten" gives five views of each validation image.

    Raises:
        DataError: If the images are missing or broken, or cannot be varied in this way.
    """
    source = open_source(config, peers=peers)
    return DataBundle(
        train=train_dataset(source, images, augment, progressive=progressive, seed=seed),
        val=eval_dataset(source.val, images, val_views),
        classes=source.classes,
        in_channels=source.in_channels,
        scale=PixelScale(images.mean, images.std, source.max_value),
        digest=source.digest,
        skipped=source.skipped,
        train_names=source.train.names,
    )


def build_eval_data(
    config: DataConfig,
    *,
    images: ImagesConfig,
    split: Literal["val", "train"] = "val",
    views: Crops = "centre",
    peers: Peers = ALONE,
) -> EvalData:
    """Build one split as evaluation sees it.

    Args:
        views: "ten" gives five views of each image; mirror images are made on the device.

    Raises:
        DataError: If the images are missing or broken.
    """
    # The other split's images are not looked at, so they need not be sound.
    options = {"checked_splits": (split,)} if isinstance(config, ImageFolderConfig) else {}
    source = open_source(config, peers=peers, **options)
    store = source.val if split == "val" else source.train
    return EvalData(
        dataset=eval_dataset(store, images, views),
        names=store.names,
        labels=store.labels,
        classes=source.classes,
        in_channels=source.in_channels,
        scale=PixelScale(images.mean, images.std, source.max_value),
        digest=source.digest,
        skipped=source.skipped,
    )
