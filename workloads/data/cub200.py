"""Caltech-UCSD Birds-200-2011 (Wah et al., 2011), as its archive unpacks.

images.txt              <image id> <path below images/>
image_class_labels.txt  <image id> <class id, from 1>
train_test_split.txt    <image id> <1 for training, 0 for test>
classes.txt             <class id> <name>
"""

import hashlib
from pathlib import Path

from workloads.data.decode import MAX_PIXELS
from workloads.data.errors import DataError
from workloads.data.files import BAD_ITSELF, LocalFiles
from workloads.data.image_folder import FolderStore
from workloads.data.peers import ALONE, Peers
from workloads.data.scan import Sample
from workloads.data.store import SourceImages

_FOLDER = "CUB_200_2011"
_TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


def build_cub200(*, path: str, loader_workers: int = 0, peers: Peers = ALONE) -> SourceImages:
    """Read the tables under `path`: the folder CUB_200_2011, or the one that holds it.

    `loader_workers` is for the loaders. Images are decoded when they are needed.

    Raises:
        DataError: If a table or an image is missing, or they do not belong together.
        OSError: The storage failed.
    """
    root = _find(Path(path))
    images, labels, training, classes = (_read_table(root / name) for name in _TABLES)
    for name, table in zip(_TABLES[1:3], (labels, training), strict=True):
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
                f"{root / _TABLES[1]}: image {image_id} has class {labels[image_id]}",
                f"{_TABLES[3]} does not name it",
            )
        split = "train" if training[image_id] == "1" else "val"
        splits[split].append((name, numbers[labels[image_id]]))
        digest.update(f"{split}\0{name}\0{labels[image_id]}\0{_size(files, name)}\n".encode())
    for split, samples in splits.items():
        if not samples:
            raise DataError(f"{root / _TABLES[2]} leaves no images to {split}")
    return SourceImages(
        train=FolderStore(files, splits["train"], max_pixels=MAX_PIXELS),
        val=FolderStore(files, splits["val"], max_pixels=MAX_PIXELS),
        classes=list(classes.values()),
        in_channels=3,
        digest=digest.hexdigest(),
    )


def _find(path: Path) -> Path:
    for root in (path, path / _FOLDER):
        if (root / _TABLES[0]).is_file():
            return root
    if not path.is_dir():
        raise DataError(f"there is no folder {path}", "the path must exist on every node")
    raise DataError(
        f"{path} is not CUB-200-2011",
        f"expected {_FOLDER} with {', '.join(_TABLES)} and images/, or the folder above it",
    )


def _read_table(file: Path) -> dict[str, str]:
    """Return the second column by the first, in the file's order."""
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        if error.errno not in BAD_ITSELF:
            raise
        raise DataError(f"{file}: {error.strerror or error}", "unpack the archive again") from None
    rows = [line.split(maxsplit=1) for line in lines if line.strip()]
    for row in rows:
        if len(row) != 2:
            raise DataError(f"{file}: {' '.join(row)!r} is not an id and a value")
    return {first: second.strip() for first, second in rows}


def _size(files: LocalFiles, name: str) -> int:
    try:
        return files.size(name)
    except OSError as error:
        if error.errno not in BAD_ITSELF:
            raise
        raise DataError(
            f"{files.where(name)}: {error.strerror or error}", "unpack the archive again"
        ) from None
