"""Caltech-UCSD Birds-200-2011 (Wah et al., 2011) as its tables tell it."""

import hashlib
from pathlib import Path

from workloads.data.cub200_tables import TABLES, find_root, read_table
from workloads.data.decode import MAX_PIXELS
from workloads.data.errors import DataError
from workloads.data.files import BAD_ITSELF, LocalFiles
from workloads.data.image_folder import FolderStore
from workloads.data.peers import ALONE, Peers
from workloads.data.scan import Sample
from workloads.data.store import SourceImages


def build_cub200(*, path: str, loader_workers: int = 0, peers: Peers = ALONE) -> SourceImages:
    """Read the tables under `path`: the folder CUB_200_2011, or the one that holds it.

    `loader_workers` is for the loaders. Images are decoded when they are needed.

    Raises:
        DataError: If a table or an image is missing, or they do not belong together.
        OSError: The storage failed.
    """
    root = find_root(Path(path))
    images, labels, training, classes = (read_table(root / name) for name in TABLES)
    for name, table in zip(TABLES[1:3], (labels, training), strict=True):
        if table.keys() != images.keys():
            odd = sorted(table.keys() ^ images.keys())[0]
            raise DataError(
                f"{root / name} and {root / 'images.txt'} number other images",
                f"image {odd} is in one of them only",
            )
    numbers = {class_id: number for number, class_id in enumerate(classes)}
    files = LocalFiles(root / "images")
    splits: dict[str, list[Sample]] = {"train": [], "val": []}
    digest = hashlib.sha256()
    for image_id, name in images.items():
        if labels[image_id] not in numbers:
            raise DataError(
                f"{root / TABLES[1]}: image {image_id} has class {labels[image_id]}",
                f"{TABLES[3]} does not name it",
            )
        split = "train" if training[image_id] == "1" else "val"
        splits[split].append((name, numbers[labels[image_id]]))
        digest.update(f"{split}\0{name}\0{labels[image_id]}\0{_size(files, name)}\n".encode())
    for split, samples in splits.items():
        if not samples:
            raise DataError(f"{root / TABLES[2]} leaves no images to {split}")
    return SourceImages(
        train=FolderStore(files, splits["train"], max_pixels=MAX_PIXELS),
        val=FolderStore(files, splits["val"], max_pixels=MAX_PIXELS),
        classes=list(classes.values()),
        in_channels=3,
        digest=digest.hexdigest(),
    )


def _size(files: LocalFiles, name: str) -> int:
    try:
        return files.size(name)
    except OSError as error:
        if error.errno not in BAD_ITSELF:
            raise
        raise DataError(
            f"{files.where(name)}: {error.strerror or error}", "unpack the archive again"
        ) from None
