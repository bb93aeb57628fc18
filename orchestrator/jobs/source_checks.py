"""Whether the files that a training needs are there, looked at before anything is recorded.

Only names, sizes and a few headers are read, without torch: what takes longer the workers check
before they train. To be asked only where the cluster is this machine; another one may see other
folders. One function for each source, in `CHECKS`.
"""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from orchestrator.jobs.data_paths import is_uri
from workloads.config.data import (
    CifarConfig,
    Cub200Config,
    DigitsConfig,
    FashionMnistConfig,
    ImageFolderConfig,
    PackedConfig,
    TorchvisionConfig,
)
from workloads.config.errors import ConfigError, Problem
from workloads.config.train import TrainConfig
from workloads.data.errors import DataError

_IMAGES_DECODED = 2000
"""Of an image folder; all of a large one would take too long."""

_DIGITS_PER_CLASS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)

_CHECKPOINT_FOLDERS = ("state.pt", "checkpoints", "step-*")
"""In a checkpoint, in a job's folder, and in its folder of checkpoints."""

_IDX_FILES = {
    "train-images-idx3-ubyte": 3,
    "train-labels-idx1-ubyte": 1,
    "t10k-images-idx3-ubyte": 3,
    "t10k-labels-idx1-ubyte": 1,
}
"""Names of Fashion-MNIST's files, and the dimensions of what they hold."""

_FIVE = [f"data_batch_{number}" for number in range(1, 6)]
_CIFAR_VERSIONS: dict[str, dict[str, list[str]]] = {
    "cifar10": {
        "cifar-10-batches-py": [*_FIVE, "test_batch", "batches.meta"],
        "cifar-10-batches-bin": [
            *(f"{name}.bin" for name in _FIVE),
            "test_batch.bin",
            "batches.meta.txt",
        ],
    },
    "cifar100": {
        "cifar-100-python": ["train", "test", "meta"],
        "cifar-100-binary": ["train.bin", "test.bin", "fine_label_names.txt"],
    },
}
_CIFAR_TRAIN_IMAGES = 50_000

_CUB_TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")

_TORCHVISION_FOLDERS = {
    "Caltech101": ("caltech101",),
    "Country211": ("country211",),
    "DTD": ("dtd",),
    "EuroSAT": ("eurosat",),
    "FGVCAircraft": ("fgvc-aircraft-2013b",),
    "Flowers102": ("flowers-102",),
    "Food101": ("food-101",),
    "GTSRB": ("gtsrb",),
    "Imagenette": ("imagenette2", "imagenette2-320", "imagenette2-160"),
    "OxfordIIITPet": ("oxford-iiit-pet",),
    "STL10": ("stl10_binary",),
    "StanfordCars": ("stanford_cars",),
    "SVHN": ("train_32x32.mat",),
}
"""What torchvision looks for under the folder that it calls `root`."""


def check_files(config: TrainConfig, source: str) -> None:
    """Look for the images and weights of a training, and whether there are enough images.

    Args:
        config: With absolute paths.
        source: The file or command line to name in errors.

    Raises:
        DataError: The data are missing or not laid out as they must be.
        ConfigError: The weights are missing, or the images do not fill a batch.
    """
    if config.init is not None:
        _check_weights(config.init.weights, source)
    check = CHECKS.get(config.data.name)
    if check is None or is_uri(getattr(config.data, "path", "")):
        return
    num_images = check(config.data)
    if num_images is not None:
        _check_amount(config, num_images, source)


def _check_weights(weights: str, source: str) -> None:
    if is_uri(weights) or weights.endswith((":best", ":last")):
        return
    path = Path(weights)
    what = ""
    if not path.exists():
        what = f"there is no file {path}"
    elif path.is_dir():
        if not any(any(path.glob(pattern)) for pattern in _CHECKPOINT_FOLDERS):
            what = f"{path} is a folder without a checkpoint in it"
    elif not _begins_like_weights(path):
        what = f"{path} is no file of weights (torch.save or safetensors)"
    if what:
        hint = "a file of weights, or a job's name (see: gcpctl status)"
        raise ConfigError(source, [Problem("init.weights", what, hint)])


def _begins_like_weights(path: Path) -> bool:
    """Whether a file begins as an archive or pickle of torch does, or says it is safetensors."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError:
        return True  # perhaps readable for the workers, who say so if not
    return start.startswith((b"PK\x03\x04", b"\x80")) or (
        path.suffix == ".safetensors" and start != b""
    )


def _check_amount(config: TrainConfig, num_images: int, source: str) -> None:
    batch, steps = config.global_batch_size, config.steps_per_epoch
    full = num_images // batch
    if full == 0:
        message = f"{batch} images make a batch, and {config.data.name} has {num_images} to train"
        raise ConfigError(source, [Problem("global_batch_size", message)])
    if steps is not None and steps > full:
        message = f"{steps} asked for, {num_images} images make {full}"
        raise ConfigError(source, [Problem("steps_per_epoch", message)])


# --- one check for each source: from its config to the number of training images, if known -------


def check_digits(data: DigitsConfig) -> int:
    """Count what is left to train on of the built-in images."""
    held_out = (min(max(round(data.val_fraction * n), 1), n - 1) for n in _DIGITS_PER_CLASS)
    return sum(_DIGITS_PER_CLASS) - sum(held_out)


def check_image_folder(
    data: ImageFolderConfig, split: Literal["train", "val"] | None = None
) -> int:
    """Look for a split, or both, and all classes, and decode the first images."""
    from workloads.data.scan import SPLITS, check_images, scan_image_folder

    index = scan_image_folder(data.path, SPLITS if split is None else (split,))
    if data.check_images:
        check_images(
            index.only(split) if split is not None else index,
            max_pixels=data.max_pixels,
            on_bad_image=data.on_bad_image,
            limit=_IMAGES_DECODED,
        )
    return len(index.train)


def check_packed(data: PackedConfig) -> int:
    """Look for a finished pack with the wanted variant, and all its files in their sizes."""
    from workloads.data.pack_manifest import MANIFEST, parse_manifest

    root = _folder(data.path, "gcpctl data pack SRC DST writes one")
    if not (root / MANIFEST).is_file():
        raise DataError(
            f"{root} has no {MANIFEST}, so it is no folder of packed images",
            "gcpctl data pack SRC DST writes one; a folder of images is data.name=image_folder",
        )
    manifest = parse_manifest((root / MANIFEST).read_bytes(), str(root))
    if not manifest.finished:
        raise DataError(
            f"the packing into {root} was not finished",
            "run the same `gcpctl data pack` again; it goes on where it was",
        )
    variant = manifest.find_variant(data.variant, str(root))
    for file in manifest.stored_files(variant.name):
        path = root / file.path
        size = path.stat().st_size if path.is_file() else None
        if size != file.bytes:
            there = "is missing" if size is None else f"has {size} bytes of {file.bytes}"
            raise DataError(f"{path} {there}", "copy the folder again, or pack the images again")
    skipped = sum(len(shard.skipped) for shard in manifest.shards_of("train"))
    return sum(shard.images for shard in manifest.shards_of("train")) - skipped


def check_fashion_mnist(data: FashionMnistConfig) -> int:
    """Look for the four files, and read how many images they say they hold."""
    hint = "Debian's package dataset-fashion-mnist has them: apt-get install "
    hint += "dataset-fashion-mnist; or name their folder in data.path"
    root = _folder(data.path, hint)
    counts = {}
    for name, dimensions in _IDX_FILES.items():
        path = next((p for p in (root / name, root / f"{name}.gz") if p.is_file()), None)
        if path is None:
            raise DataError(f"{root} has neither {name} nor {name}.gz", hint)
        counts[name] = _idx_items(path, dimensions)
    return counts["train-images-idx3-ubyte"]


def _idx_items(path: Path, dimensions: int) -> int:
    """Return the first dimension of an IDX file of bytes."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(8)
    except (OSError, EOFError, zlib.error) as exc:
        raise DataError(f"cannot read {path}: {exc}", "fetch it again") from None
    if len(header) < 8 or header[:4] != bytes((0, 0, 8, dimensions)):
        begins = header[:4].hex(" ") or "nothing"
        raise DataError(
            f"{path} is not an IDX file of bytes with {dimensions} dimension(s)",
            f"it begins with {begins}",
        )
    return int.from_bytes(header[4:8], "big")


def check_cifar(data: CifarConfig) -> int:
    """Look for the files of either version, in the folder or in the archive's own below it."""
    root = _folder(data.path, "name the folder that the archive was unpacked into")
    versions = _CIFAR_VERSIONS[data.name]
    best_missing: list[str] | None = None
    for folder, names in versions.items():
        for place in (root, root / folder):
            missing = [name for name in names if not (place / name).is_file()]
            if not missing:
                return _CIFAR_TRAIN_IMAGES
            if best_missing is None or len(missing) < len(best_missing):
                best_missing = missing
    missing_names = ", ".join(best_missing or [])
    raise DataError(
        f"{root} does not hold {data.name}: there is no {missing_names}",
        f"expected the unpacked {' or '.join(versions)}",
    )


def check_torchvision(data: TorchvisionConfig) -> None:
    """Look for the folder that torchvision would look for."""
    root = _folder(data.path, "data.path is what torchvision calls root; nothing is downloaded")
    names = _TORCHVISION_FOLDERS[data.dataset]
    if not any((root / name).exists() for name in names):
        raise DataError(
            f"{root} has no {' or '.join(names)}, where torchvision looks for {data.dataset}",
            "data.path is the folder above it; nothing is downloaded",
        )


def check_cub200(data: Cub200Config) -> int:
    """Look for the tables and the images, and count those to train on."""
    root = _folder(data.path, "name the folder that the archive was unpacked into")
    for place in (root, root / "CUB_200_2011"):
        missing = [name for name in _CUB_TABLES if not (place / name).is_file()]
        if not missing and (place / "images").is_dir():
            lines = (place / "train_test_split.txt").read_text("utf-8", "replace").splitlines()
            return sum(line.split()[-1:] == ["1"] for line in lines)
    raise DataError(
        f"{root} does not hold CUB-200-2011: there is no {', '.join(missing) or 'images'}",
        "expected the unpacked CUB_200_2011: its four tables, and the folder images",
    )


def _folder(path: str, hint: str) -> Path:
    root = Path(path)
    if root.is_dir():
        return root
    if root.exists():
        raise DataError(f"{root} is a file, not a folder", hint)
    raise DataError(f"there is no folder {root}", hint)


CHECKS: dict[str, Callable[[Any], int | None]] = {
    "digits": check_digits,
    "image_folder": check_image_folder,
    "packed": check_packed,
    "fashion_mnist": check_fashion_mnist,
    "cifar10": check_cifar,
    "cifar100": check_cifar,
    "torchvision": check_torchvision,
    "cub200": check_cub200,
}
"""By the names of the sources."""
