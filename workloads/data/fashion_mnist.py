"""Fashion-MNIST (Xiao et al., 2017): four IDX files, packed with gzip or not.

IDX, as MNIST's page describes it: two zero bytes, the type (8 for bytes), the number of
dimensions, each dimension as a big-endian number of 32 bits, then the values.
"""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from workloads.data.class_names import FASHION_MNIST
from workloads.data.errors import DataError
from workloads.data.files import BAD_ITSELF
from workloads.data.in_memory import MemoryStore, Numbered
from workloads.data.peers import ALONE, Peers
from workloads.data.store import SourceImages

_SPLITS = {"train": "train", "val": "t10k"}
_WHERE = "Debian's package dataset-fashion-mnist has them; or name their folder in data.path"


def build_fashion_mnist(
    *, path: str = "/usr/share/datasets/fashion-mnist", peers: Peers = ALONE
) -> SourceImages:
    """Read the four files under `path`.

    Raises:
        DataError: If one is missing, cut short, or not what its name says.
        OSError: The storage failed.
    """
    digest = hashlib.sha256()
    stores = {}
    for split, word in _SPLITS.items():
        pixels = read_idx(_find(Path(path), f"{word}-images-idx3-ubyte"), dimensions=3)
        labels = read_idx(_find(Path(path), f"{word}-labels-idx1-ubyte"), dimensions=1)
        stores[split] = _store(Path(path), split, pixels, labels)
        for values in (pixels, labels):
            digest.update(str(values.shape).encode())
            digest.update(values.tobytes())
    return SourceImages(
        train=stores["train"],
        val=stores["val"],
        classes=list(FASHION_MNIST),
        in_channels=1,
        digest=digest.hexdigest(),
    )


def _store(
    path: Path, split: str, pixels: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> MemoryStore:
    if len(pixels) != len(labels) or not len(pixels):
        raise DataError(
            f"{path} holds {len(pixels)} images and {len(labels)} labels of {_SPLITS[split]}",
            "the files do not belong together",
        )
    if pixels.shape[1:] != (28, 28):
        raise DataError(
            f"{path}: the images of {_SPLITS[split]} are {pixels.shape[1]}x{pixels.shape[2]}",
            "Fashion-MNIST's are 28x28: the header is damaged, or the file is of another set",
        )
    if labels.max() >= len(FASHION_MNIST):
        raise DataError(
            f"{path}: a label of {_SPLITS[split]} is {labels.max()}",
            f"Fashion-MNIST has classes 0 to {len(FASHION_MNIST) - 1}",
        )
    return MemoryStore(
        torch.from_numpy(pixels[..., None].copy()),
        torch.from_numpy(labels.astype(np.int64)),
        Numbered(split, len(labels)),
    )


def _find(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", _WHERE)
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
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} cannot be unpacked: {error}", "fetch it again") from None
    except OSError as error:
        if error.errno not in BAD_ITSELF:
            raise
        raise DataError(f"{path}: {error.strerror or error}") from None
    header = 4 * (1 + dimensions)
    if len(data) < header or data[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(
            f"{path} is not an IDX file of bytes with {dimensions} dimension(s)",
            f"it begins with {data[:4].hex(' ') or 'nothing'}",
        )
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    expected = math.prod(shape)
    if len(data) - header != expected:
        raise DataError(
            f"{path} holds {len(data) - header} bytes of values; its header says "
            f"{'x'.join(map(str, shape))}, which is {expected}",
            "the file is cut short or damaged: fetch it again",
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)
