"""The tables of Caltech-UCSD Birds-200-2011 (Wah et al., 2011), as its archive unpacks.

images.txt              <image id> <path below images/>
image_class_labels.txt  <image id> <class id, from 1>
train_test_split.txt    <image id> <1 for training, 0 for test>
classes.txt             <class id> <name>

Needs no torch.
"""

from pathlib import Path

from workloads.data.errors import DataError
from workloads.data.files import BAD_ITSELF

_FOLDER = "CUB_200_2011"
CLASSES = "classes.txt"
TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", CLASSES)


def find_root(path: Path) -> Path:
    for root in (path, path / _FOLDER):
        if (root / TABLES[0]).is_file():
            return root
    if not path.is_dir():
        raise DataError(f"there is no folder {path}", "the path must exist on every node")
    raise DataError(
        f"{path} is not CUB-200-2011",
        f"expected {_FOLDER} with {', '.join(TABLES)} and images/, or the folder above it",
    )


def read_table(file: Path) -> dict[str, str]:
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
