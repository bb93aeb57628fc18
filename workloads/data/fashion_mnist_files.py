"""The files of Fashion-MNIST (Xiao et al., 2017): four IDX files, packed with gzip or not.

IDX, as MNIST's page describes it: two zero bytes, the type (8 for bytes), the number of
dimensions, each dimension as a big-endian number of 32 bits, then the values. Needs no torch.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workloads.data.class_names import FASHION_MNIST
from workloads.data.errors import DataError
from workloads.data.files import local_folder, read_local

SPLITS = {"train": "train", "val": "t10k"}
"""Our name of a split -> the word that its files begin with."""
_WHERE = (
    "Debian's package dataset-fashion-mnist has them: apt-get install dataset-fashion-mnist; or "
    "name their folder in data.path"
)


def read_split(path: str, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the pixels (N, 28, 28) and labels (N,) of "train" or "val" under `path`.

    Raises:
        DataError: A file is missing, cut short, not what its name says, or of another set.
        OSError: The storage failed.
    """
    folder, word = local_folder(path, _WHERE), SPLITS[split]
    pixels = read_idx(_find(folder, f"{word}-images-idx3-ubyte"), dimensions=3)
    labels = read_idx(_find(folder, f"{word}-labels-idx1-ubyte"), dimensions=1)
    if len(pixels) != len(labels):
        raise DataError(
            f"{folder} holds {len(pixels)} images and {len(labels)} labels of {word}",
            "the files do not belong together",
        )
    if not len(pixels):
        raise DataError(f"{folder} holds no images of {word}", "fetch its files again")
    if pixels.shape[1:] != (28, 28):
        raise DataError(
            f"{folder}: the images of {word} are {pixels.shape[1]}x{pixels.shape[2]}",
            "Fashion-MNIST's are 28x28: the header is damaged, or the file is of another set",
        )
    if labels.max() >= len(FASHION_MNIST):
        raise DataError(
            f"{folder}: a label of {word} is {labels.max()}",
            f"Fashion-MNIST has classes 0 to {len(FASHION_MNIST) - 1}",
        )
    return pixels, labels


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise DataError(f"{folder} has neither {name} nor {name}.gz", _WHERE)


def read_idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """Return the bytes of an IDX file in their shape.

    Raises:
        DataError: If it is not an IDX file of bytes with so many dimensions, or is cut short.
        OSError: The storage failed.
    """
    data = read_local(path, str(path))
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path} cannot be unpacked: {error}", "fetch it again") from None
    header = 4 * (1 + dimensions)
    if len(data) < 4 or data[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(
            f"{path} is not an IDX file of bytes with {dimensions} dimension(s)",
            f"it begins with {data[:4].hex(' ') or 'nothing'}",
        )
    if len(data) < header:
        raise DataError(f"{path} ends within its header", "it is cut short: fetch it again")
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    expected = math.prod(shape)
    if len(data) - header != expected:
        raise DataError(
            f"{path} holds {len(data) - header} bytes of values; its header says "
            f"{'x'.join(map(str, shape))}, which is {expected}",
            "the file is cut short or damaged: fetch it again",
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)
