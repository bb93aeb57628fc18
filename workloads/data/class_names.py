"""What a source calls its classes, in their order, told without torch and without its images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from workloads.config.data import (
    CifarConfig,
    Cub200Config,
    DataConfig,
    ImageFolderConfig,
    PackedConfig,
)
from workloads.data.errors import DataError
from workloads.data.filesystem import is_remote, local_path

DIGITS = tuple(str(digit) for digit in range(10))
FASHION_MNIST = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

Split = Literal["train", "val"]


def class_names(data: DataConfig, split: Split = "train") -> list[str] | None:
    """Return the names of a source's classes as its images are numbered.

    Args:
        data: Where the images are, as this process sees it.
        split: Of an image folder the split that is read; the other one may be missing.

    Returns:
        None where only reading the images tells: of a store that is not this machine's, and of
        what torchvision reads.

    Raises:
        DataError: The files that name them are missing or damaged.
        OSError: The storage failed.
    """
    reader = _READERS.get(data.name)
    if reader is None or is_remote(getattr(data, "path", "")):
        return None
    return reader(data, split)


def _of_folder(data: ImageFolderConfig, split: Split) -> list[str]:
    from workloads.data.scan import class_folders

    return class_folders(Path(local_path(data.path)), split)


def _of_pack(data: PackedConfig, split: Split) -> list[str]:
    from workloads.data.pack_manifest import MANIFEST, parse_manifest

    file = Path(local_path(data.path)) / MANIFEST
    try:
        return list(parse_manifest(file.read_bytes(), data.path).classes)
    except FileNotFoundError:
        raise DataError(f"there is no {file}") from None


def _of_cifar(data: CifarConfig, split: Split) -> list[str]:
    from workloads.data.cifar_files import find_version, read_classes

    num_classes = data.num_classes
    assert num_classes is not None
    folder, version = find_version(data.path, num_classes)
    return read_classes(folder, version, num_classes)


def _of_cub200(data: Cub200Config, split: Split) -> list[str]:
    from workloads.data.cub200_tables import CLASSES, find_root, read_table

    return list(read_table(find_root(data.path) / CLASSES).values())


_READERS: dict[str, Callable[[Any, Split], list[str]]] = {
    "digits": lambda data, split: list(DIGITS),
    "fashion_mnist": lambda data, split: list(FASHION_MNIST),
    "image_folder": _of_folder,
    "packed": _of_pack,
    "cifar10": _of_cifar,
    "cifar100": _of_cifar,
    "cub200": _of_cub200,
}
