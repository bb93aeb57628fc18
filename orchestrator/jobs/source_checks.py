"""Whether the files that a training needs are there, looked at before anything is recorded.

Without torch, and within about a second: small sets are read whole; of others names, sizes and the
first images. What takes longer the workers check before they train. To be asked only where the
cluster is this machine; another one may see other folders. One function for each source, in
`CHECKS`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from orchestrator.jobs.data_paths import is_uri
from workloads.config.data import (
    CifarConfig,
    Cub200Config,
    DataConfig,
    DigitsConfig,
    FashionMnistConfig,
    ImageFolderConfig,
    PackedConfig,
    TorchvisionConfig,
)
from workloads.config.errors import ConfigError, Problem
from workloads.config.train import TrainConfig
from workloads.data.filesystem import is_remote

_IMAGES_DECODED = 2000
"""Of an image folder; all of a large one would take too long."""

_DIGITS_PER_CLASS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)

_READ_FROM_STORES = ("image_folder", "packed")

_CHECKPOINT_FOLDERS = ("state.pt", "checkpoints", "step-*")
"""In a checkpoint, in a job's folder, and in its folder of checkpoints."""


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
    if is_in_a_store(config.data):
        return
    num_images = CHECKS[config.data.name](config.data)
    if num_images is not None:
        _check_amount(config, num_images, source)


def is_in_a_store(data: DataConfig) -> bool:
    """Whether images lie in a store and may do so: then the workers look for them."""
    return data.name in _READ_FROM_STORES and is_remote(getattr(data, "path", ""))


def _check_weights(weights: str, source: str) -> None:
    from orchestrator.jobs.checkpoints import parse_pending

    if is_uri(weights) or parse_pending(weights) is not None:
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
    bad: list[str] = []
    if data.check_images:
        bad = check_images(
            index.only(split) if split is not None else index,
            max_pixels=data.max_pixels,
            on_bad_image=data.on_bad_image,
            limit=_IMAGES_DECODED,
        )
    return len(index.train) - sum(name.startswith("train/") for name in bad)


def check_packed(data: PackedConfig) -> int:
    """Look for a finished pack with the wanted variant, and all its files in their sizes."""
    from workloads.data.filesystem import open_filesystem
    from workloads.data.pack_manifest import read_manifest
    from workloads.data.pack_verify import damaged_error, find_wrong_sizes

    filesystem, root = open_filesystem(data.path)
    manifest = read_manifest(filesystem, root, data.path)
    manifest.refuse_unusable(data.path)
    variant = manifest.find_variant(data.variant, data.path)
    if wrong := find_wrong_sizes(filesystem, root, manifest.stored_files(variant.name)):
        raise damaged_error(data.path, wrong)
    return sum(shard.images for shard in manifest.shards_of("train"))


def check_fashion_mnist(data: FashionMnistConfig) -> int:
    """Read the four files: it takes a fraction of a second."""
    from workloads.data.fashion_mnist_files import SPLITS, read_split

    return {split: len(read_split(data.path, split)[1]) for split in SPLITS}["train"]


def check_cifar(data: CifarConfig) -> int:
    """Read all files, one at a time: it takes a fraction of a second."""
    from workloads.data.cifar_files import find_version, read_classes, read_images

    num_classes = data.num_classes
    assert num_classes is not None
    folder, version = find_version(data.path, num_classes)
    read_classes(folder, version, num_classes)
    images = {
        file: len(read_images(folder / file, version, num_classes)[1])
        for file in (*version.train, *version.val)
    }
    return sum(images[file] for file in version.train)


def check_torchvision(data: TorchvisionConfig) -> None:
    """Look for the files that torchvision would look for."""
    from workloads.data.torchvision_layouts import find_set

    find_set(data.path, data.dataset, data.train_split, data.val_split)


def check_cub200(data: Cub200Config) -> int:
    """Read the tables, look for the images, and count those to train on."""
    from workloads.data.cub200_tables import read_tables

    return len(read_tables(data.path).samples["train"])


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
