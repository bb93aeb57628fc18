"""scikit-learn's 1,797 images of hand-written digits, 8x8 pixels, the built-in data.

The file is read where scikit-learn keeps it, without importing scikit-learn: that takes seconds.
"""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from workloads.config.data import DigitsConfig
from workloads.data.class_names import DIGITS
from workloads.data.errors import DataError
from workloads.data.in_memory import MemoryStore
from workloads.data.peers import ALONE, Peers
from workloads.data.splits import hold_out
from workloads.data.store import SourceImages


def build_digits(*, val_fraction: float = 0.2, peers: Peers = ALONE) -> SourceImages:
    """Read the digits and split them, class by class, always in the same way.

    With the default fraction 1,438 images train and 359 validate (35 to 37 of each class). The
    bytes go from 0 to 16.

    Raises:
        DataError: If scikit-learn is not installed.
    """
    path = _data_file()
    table = np.loadtxt(path, delimiter=",", dtype=np.float32)
    pixels = torch.from_numpy(table[:, :64]).reshape(-1, 8, 8, 1).to(torch.uint8)
    labels = torch.from_numpy(table[:, 64]).long()
    held_out = hold_out(labels, val_fraction)

    def store(chosen: Tensor) -> MemoryStore:
        names = [f"digits/{index}" for index in chosen.nonzero().flatten().tolist()]
        return MemoryStore(pixels[chosen], labels[chosen], names)

    return SourceImages(
        train=store(~held_out),
        val=store(held_out),
        classes=list(DIGITS),
        in_channels=1,
        digest=hashlib.sha256(path.read_bytes() + f" {val_fraction!r}".encode()).hexdigest(),
        max_value=float(DigitsConfig.white),
    )


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
