"""scikit-learn's 1,797 images of hand-written digits, 8x8 pixels, the built-in data.

The file is read where scikit-learn keeps it, without importing scikit-learn: that takes seconds.
"""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from workloads.data.bundle import DataBundle
from workloads.data.errors import DataError
from workloads.data.peers import ALONE, Peers

MEAN, STD = 0.3053, 0.3760
"""Of all pixels, scaled to [0, 1]."""
SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


class DigitsDataset:
    """Normalised digits in memory, (N, 1, 8, 8), with an optional shift by up to one pixel.

    All nine shifted copies are kept (3.3 MB), so that a batch is one lookup. The shift of image i
    in an epoch is the i-th number of a counter-based stream keyed by (seed, epoch).
    """

    def __init__(self, images: Tensor, labels: Tensor, *, seed: int, augment: bool) -> None:
        self._labels = labels
        self._augment = augment
        self._seed = seed
        self._epoch = -1
        self._shift = torch.zeros(len(labels), dtype=torch.int64)
        background = -MEAN / STD
        padded = F.pad(images, (1, 1, 1, 1), value=background)
        shifts = SHIFTS if augment else [(0, 0)]
        self._copies = torch.stack(
            [padded[..., 1 - dy : 9 - dy, 1 - dx : 9 - dx] for dy, dx in shifts]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def get(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return one image, (1, 8, 8), and its class, as seen in `epoch`."""
        images, labels = self.get_batch(torch.tensor([index]), epoch)
        return images[0], int(labels[0])

    def get_batch(self, indices: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Return images (B, 1, 8, 8) and classes (B,) at `indices` (B,)."""
        if self._augment and epoch != self._epoch:
            stream = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
            self._shift = torch.from_numpy(stream.integers(0, len(SHIFTS), size=len(self)))
            self._epoch = epoch
        return self._copies[self._shift[indices], indices], self._labels[indices]


def build_digits(
    *, seed: int, val_fraction: float = 0.2, augment: bool = True, peers: Peers = ALONE
) -> DataBundle:
    """Read the digits and split them, class by class, the same way for every seed.

    With the default fraction 1,438 images train and 359 validate (35 to 37 of each class).
    """
    path = _data_file()
    table = np.loadtxt(path, delimiter=",", dtype=np.float32)
    pixels = (torch.from_numpy(table[:, :64]).reshape(-1, 1, 8, 8) / 16.0 - MEAN) / STD
    labels = torch.from_numpy(table[:, 64]).long()
    held_out = _split(labels.numpy(), val_fraction)
    return DataBundle(
        train=DigitsDataset(pixels[~held_out], labels[~held_out], seed=seed, augment=augment),
        val=DigitsDataset(pixels[held_out], labels[held_out], seed=seed, augment=False),
        classes=[str(digit) for digit in range(10)],
        in_channels=1,
        image_size=8,
        digest=hashlib.sha256(path.read_bytes() + f" {val_fraction!r}".encode()).hexdigest(),
    )


def _split(labels: np.ndarray, val_fraction: float) -> Tensor:
    """Choose the images held out: a fixed shuffle of each class, its first share."""
    held_out = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        shuffled = np.random.Generator(np.random.Philox(key=digit)).permutation(members)
        count = min(max(round(val_fraction * len(members)), 1), len(members) - 1)
        held_out[shuffled[:count]] = True
    return torch.from_numpy(held_out)


def _data_file() -> Path:
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations if spec is not None else None) or []:
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise DataError(
        "the data source 'digits' needs scikit-learn, which carries the images, and it is not "
        "installed here",
        "install scikit-learn on every node of the cluster",
    )
