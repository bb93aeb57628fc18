"""The tables of Caltech-UCSD Birds-200-2011 (Wah et al., 2011), as its archive unpacks.

images.txt              <image id> <path below images/>
image_class_labels.txt  <image id> <class id, from 1>
train_test_split.txt    <image id> <1 for training, 0 for test>
classes.txt             <class id> <name>

Needs no torch.
"""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from workloads.data.errors import DataError
from workloads.data.files import BAD_ITSELF, LocalFiles, local_folder, read_local

_FOLDER = "CUB_200_2011"
CLASSES = "classes.txt"
_SPLITS = {"1": "train", "0": "val"}
TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", CLASSES)


@dataclass(frozen=True)
class Cub200:
    """What the tables say.

    Attributes:
        root: The folder of the tables.
        classes: Class names in the order of their table.
        samples: By split, the paths below images/ with the numbers of their classes.
        digest: SHA-256 over the tables and the images' sizes.
    """

    root: Path
    classes: list[str]
    samples: dict[str, list[tuple[str, int]]]
    digest: str


def read_tables(path: str | os.PathLike[str]) -> Cub200:
    """Read the tables under `path`: the folder CUB_200_2011, or the one that holds it.

    Raises:
        DataError: If a table or an image is missing, or they do not belong together.
        OSError: The storage failed.
    """
    root = find_root(path)
    images, labels, training, classes = (read_table(root / name) for name in TABLES)
    for name, table in zip(TABLES[1:3], (labels, training), strict=True):
        if table.keys() != images.keys():
            odd = sorted(table.keys() ^ images.keys())[0]
            raise DataError(
                f"{root / name} and {root / 'images.txt'} number other images",
                f"image {odd} is in one of them only",
            )
    if len(classes) < 2:
        raise DataError(f"{root / CLASSES} names {len(classes)} class(es)", "unpack it again")
    numbers = {class_id: number for number, class_id in enumerate(classes)}
    files = LocalFiles(root / "images")
    samples: dict[str, list[tuple[str, int]]] = {"train": [], "val": []}
    digest = hashlib.sha256()
    for image_id, name in images.items():
        if labels[image_id] not in numbers:
            raise DataError(
                f"{root / TABLES[1]}: image {image_id} has class {labels[image_id]}",
                f"{CLASSES} does not name it",
            )
        split = _SPLITS.get(training[image_id])
        if split is None:
            raise DataError(
                f"{root / TABLES[2]}: image {image_id} has {training[image_id]!r}",
                "1 is for training, 0 for test",
            )
        if name.startswith("/") or ".." in name.split("/"):
            raise DataError(f"{root / TABLES[0]}: {name!r} leads out of the folder images")
        samples[split].append((name, numbers[labels[image_id]]))
        digest.update(f"{split}\0{name}\0{labels[image_id]}\0{_size(files, name)}\n".encode())
    for split, found in samples.items():
        if not found:
            raise DataError(f"{root / TABLES[2]} leaves no images to {split}")
    return Cub200(root, list(classes.values()), samples, digest.hexdigest())


def find_root(path: str | os.PathLike[str]) -> Path:
    """Return the folder of the tables; of `path` itself, or of what the archive unpacks below.

    Raises:
        DataError: A table or the folder of the images is missing.
    """
    path = local_folder(path, "name the folder that the archive was unpacked into")
    begun: DataError | None = None
    for root in (path, path / _FOLDER):
        missing = [name for name in TABLES if not (root / name).is_file()]
        missing += [] if (root / "images").is_dir() else ["images"]
        if not missing:
            return root
        if len(missing) < len(TABLES):
            text = f"{root} lacks {', '.join(missing)} of CUB-200-2011"
            begun = DataError(text, "unpack the archive again")
    raise begun or DataError(
        f"{path} does not hold CUB-200-2011",
        f"expected {_FOLDER} with {', '.join(TABLES)} and images/, or the folder above it",
    )


def read_table(file: Path) -> dict[str, str]:
    """Return the second column by the first, in the file's order.

    Raises:
        DataError: It cannot be read, or is no table of ids and values.
        OSError: The storage failed.
    """
    try:
        lines = read_local(file, str(file)).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{file} is no text in UTF-8", "unpack the archive again") from None
    found: dict[str, str] = {}
    for row in (line.split(maxsplit=1) for line in lines if line.strip()):
        if len(row) != 2:
            raise DataError(f"{file}: {' '.join(row)!r} is not an id and a value")
        if row[0] in found:
            raise DataError(f"{file} names {row[0]} twice", "unpack the archive again")
        found[row[0]] = row[1].strip()
    return found


def _size(files: LocalFiles, name: str) -> int:
    try:
        state = (files.path / name).stat()
    except ValueError:  # a NUL in the name
        raise DataError(f"{files.where(name)}: no file can be called so") from None
    except OSError as error:
        if error.errno not in BAD_ITSELF:
            raise
        raise DataError(
            f"{files.where(name)}: {error.strerror or error}", "unpack the archive again"
        ) from None
    if not stat.S_ISREG(state.st_mode) or not state.st_size:
        what = "is empty" if stat.S_ISREG(state.st_mode) else "is no regular file"
        raise DataError(f"{files.where(name)}: {what}", "unpack the archive again")
    return state.st_size
