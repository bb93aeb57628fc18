"""The files of CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), as the published archives unpack.

Both versions are read: Python's pickles (`cifar-10-batches-py`, `cifar-100-python`) and the binary
one (`cifar-10-batches-bin`, `cifar-100-binary`), where each image is one or two labels followed by
1024 bytes each of red, green and blue. Needs no torch.
"""

import io
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workloads.data.errors import DataError
from workloads.data.files import local_folder, read_local

Bytes = NDArray[np.uint8]
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Version:
    """File names of one version of one set.

    Attributes:
        labels: In Python's version the key of the labels; in the binary one the bytes before the
            pixels, of which the last is the label.
        classes: The file of class names; in Python's version with its key.
    """

    folder: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    labels: str | int
    classes: tuple[str, str]


_FIVE = tuple(f"data_batch_{number}" for number in range(1, 6))
_VERSIONS = {
    10: (
        Version(
            "cifar-10-batches-py",
            _FIVE,
            ("test_batch",),
            "labels",
            ("batches.meta", "label_names"),
        ),
        Version(
            "cifar-10-batches-bin",
            tuple(f"{name}.bin" for name in _FIVE),
            ("test_batch.bin",),
            1,
            ("batches.meta.txt", ""),
        ),
    ),
    100: (
        Version(
            "cifar-100-python", ("train",), ("test",), "fine_labels", ("meta", "fine_label_names")
        ),
        Version("cifar-100-binary", ("train.bin",), ("test.bin",), 2, ("fine_label_names.txt", "")),
    ),
}


def find_version(path: str | os.PathLike[str], num_classes: int) -> tuple[Path, Version]:
    """Return the folder that has all files of a version, and the version.

    Where there are several, the first that is whole counts.

    Raises:
        DataError: None is whole; names what is missing of the one that is nearest to it.
    """
    versions = _VERSIONS[num_classes]
    path = local_folder(path, "name the folder that the archive was unpacked into")
    nearest: tuple[list[str], Path] | None = None
    for version in versions:
        for folder in (path, path / version.folder):
            names = (*version.train, *version.val, version.classes[0])
            missing = [name for name in names if not (folder / name).is_file()]
            if not missing:
                return folder, version
            if (
                len(missing) < len(names) or (folder.name == version.folder and folder.is_dir())
            ) and (nearest is None or len(missing) < len(nearest[0])):
                nearest = missing, folder
    if nearest is not None:
        raise DataError(
            f"{nearest[1]} lacks {', '.join(nearest[0])} of CIFAR-{num_classes}",
            "unpack the archive again",
        )
    known = " or ".join(version.folder for version in versions)
    raise DataError(
        f"{path} does not hold CIFAR-{num_classes}",
        f"expected the folder {known}, or the one above it; for CIFAR-{110 - num_classes}: "
        f"data.name=cifar{110 - num_classes}",
    )


def read_classes(folder: Path, version: Version, num_classes: int) -> list[str]:
    file, key = version.classes
    if key:
        names = _unpickle(folder / file).get(key, [])
        classes = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    else:
        lines = _bytes_of(folder / file).decode("utf-8", "replace").splitlines()
        classes = [line.strip() for line in lines if line.strip()]
    if len(classes) != num_classes:
        raise DataError(
            f"{folder / file} names {len(classes)} classes",
            f"CIFAR-{num_classes} has {num_classes}",
        )
    return classes


def read_images(file: Path, version: Version, num_classes: int) -> tuple[Bytes, Bytes]:
    """Return the pixels (N, 3072) and labels (N,) of one file, as bytes."""
    if isinstance(version.labels, int):
        data = np.frombuffer(_bytes_of(file), dtype=np.uint8)
        record = version.labels + _PIXELS
        if len(data) == 0 or len(data) % record:
            raise DataError(
                f"{file} has {len(data)} bytes, which is no whole number of images",
                f"each takes {record} bytes: the file is cut short or of another set",
            )
        records = data.reshape(-1, record)
        pixels, labels = records[:, version.labels :], records[:, version.labels - 1]
    else:
        content = _unpickle(file)
        given, numbers = content.get("data"), _as_bytes(content.get(version.labels))
        if not (
            isinstance(given, np.ndarray)
            and given.dtype == np.uint8
            and numbers is not None
            and given.shape == (len(numbers), _PIXELS)
        ):
            raise DataError(
                f"{file} does not hold pixels and {version.labels} of CIFAR-{num_classes}",
                "unpack the archive again",
            )
        pixels, labels = given, numbers
    if not len(labels):
        raise DataError(f"{file} holds no images", "unpack the archive again")
    if labels.max(initial=0) >= num_classes:
        raise DataError(f"{file}: a label is {labels.max()}", f"allowed: 0 to {num_classes - 1}")
    return pixels, labels


def _as_bytes(labels: Any) -> Bytes | None:
    if not isinstance(labels, Sequence | np.ndarray) or isinstance(labels, str | bytes):
        return None
    values = np.asarray(labels)
    sound = values.ndim == 1 and values.dtype.kind in "iu"
    return values.astype(np.uint8) if sound and ((values >= 0) & (values < 256)).all() else None


def _bytes_of(file: Path) -> bytes:
    return read_local(file, str(file))


class _PlainUnpickler(pickle.Unpickler):
    """Builds NumPy's arrays and Python's plain types; a pickle could otherwise run anything."""

    _ALLOWED = frozenset(
        {
            ("_codecs", "encode"),
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _unpickle(file: Path) -> dict[str, Any]:
    try:
        content = _PlainUnpickler(io.BytesIO(_bytes_of(file)), encoding="bytes").load()
    except DataError:
        raise
    except Exception as error:  # damaged pickles raise almost anything
        raise DataError(f"{file} is no pickle of CIFAR: {error}", "unpack it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{file} holds a {type(content).__name__}, not a table")
    return {k.decode() if isinstance(k, bytes) else str(k): v for k, v in content.items()}
