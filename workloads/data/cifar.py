"""CIFAR-10 and CIFAR-100 in memory."""

import hashlib

import numpy as np
import torch

from workloads.data.cifar_files import find_version, read_classes, read_images
from workloads.data.in_memory import MemoryStore, Numbered
from workloads.data.peers import ALONE, Peers
from workloads.data.store import SourceImages


def build_cifar10(*, path: str, peers: Peers = ALONE) -> SourceImages:
    """Read CIFAR-10 under `path`: the unpacked folder, or the one that holds it.

    Raises:
        DataError: If files are missing, cut short, or not what their names say.
        OSError: The storage failed.
    """
    return _build(path, 10)


def build_cifar100(*, path: str, peers: Peers = ALONE) -> SourceImages:
    """Read CIFAR-100 with its 100 fine classes; otherwise as `build_cifar10`."""
    return _build(path, 100)


def _build(path: str, num_classes: int) -> SourceImages:
    folder, version = find_version(path, num_classes)
    classes = read_classes(folder, version, num_classes)
    digest = hashlib.sha256()
    stores = {}
    for split, files in (("train", version.train), ("val", version.val)):
        parts = [read_images(folder / name, version, num_classes) for name in files]
        pixels = np.concatenate([pixels for pixels, _ in parts])
        labels = np.concatenate([labels for _, labels in parts])
        digest.update(split.encode())
        digest.update(pixels.tobytes())
        digest.update(labels.tobytes())
        planes = torch.from_numpy(pixels).view(-1, 3, 32, 32)
        stores[split] = MemoryStore(
            planes.permute(0, 2, 3, 1).contiguous(),
            torch.from_numpy(labels.astype(np.int64)),
            Numbered(split, len(labels)),
        )
    return SourceImages(
        train=stores["train"],
        val=stores["val"],
        classes=classes,
        in_channels=3,
        digest=digest.hexdigest(),
    )
