"""Fashion-MNIST in memory."""

import hashlib

import numpy as np
import torch

from workloads.data.class_names import FASHION_MNIST
from workloads.data.fashion_mnist_files import SPLITS, read_split
from workloads.data.in_memory import MemoryStore, Numbered
from workloads.data.peers import ALONE, Peers
from workloads.data.store import SourceImages


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
    for split in SPLITS:
        pixels, labels = read_split(path, split)
        stores[split] = MemoryStore(
            torch.from_numpy(pixels[..., None].copy()),
            torch.from_numpy(labels.astype(np.int64)),
            Numbered(split, len(labels)),
        )
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
