"""Datasets that torchvision reads, under the folder that it calls `root`; nothing is downloaded.

torchvision says which files there are and what they show. The files themselves are decoded as
those of an image folder are.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workloads.data.decode import MAX_PIXELS
from workloads.data.errors import DataError
from workloads.data.files import BAD_ITSELF, LocalFiles
from workloads.data.image_folder import FolderStore
from workloads.data.in_memory import MemoryStore
from workloads.data.peers import ALONE, Peers
from workloads.data.splits import hold_out
from workloads.data.store import ImageStore, SourceImages
from workloads.data.torchvision_layouts import LAYOUTS, Layout, find_set


def build_torchvision(
    *,
    path: str,
    dataset: str,
    train_split: str | None = None,
    val_split: str | None = None,
    val_fraction: float = 0.2,
    loader_workers: int = 0,
    peers: Peers = ALONE,
) -> SourceImages:
    """Let torchvision read its set `dataset` under `path`.

    `loader_workers` is for the loaders. A set without splits gives a fixed share of each class to
    validation.

    Raises:
        DataError: If torchvision does not find it, or has no such split.
        OSError: The storage failed.
    """
    root, splits = find_set(path, dataset, train_split, val_split)
    layout = LAYOUTS[dataset]
    if splits is None:
        classes, whole = _open(dataset, root, layout, None)
        held_out = hold_out(whole.labels, val_fraction)
        train, val = whole.take(~held_out), whole.take(held_out)
    else:
        classes, train = _open(dataset, root, layout, splits[0])
        other, val = _open(dataset, root, layout, splits[1])
        if other != classes:
            raise DataError(f"the splits of {dataset} under {root} name other classes")
    return SourceImages(
        train=train.store(),
        val=val.store(),
        classes=classes,
        in_channels=3,
        digest=hashlib.sha256(f"{train.digest()} {val.digest()}".encode()).hexdigest(),
    )


@dataclass(frozen=True)
class _Split:
    """Images as torchvision names them: files below `root`, or pixels (N, H, W, C) in memory."""

    root: Path
    names: list[str]
    labels: Tensor
    pixels: Tensor | None = None

    def take(self, chosen: Tensor) -> "_Split":
        indices = chosen.nonzero().flatten()
        names = [self.names[index] for index in indices.tolist()]
        pixels = None if self.pixels is None else self.pixels[indices]
        return _Split(self.root, names, self.labels[indices], pixels)

    def store(self) -> ImageStore:
        if self.pixels is not None:
            return MemoryStore(self.pixels, self.labels, self.names)
        samples = list(zip(self.names, self.labels.tolist(), strict=True))
        return FolderStore(LocalFiles(self.root), samples, max_pixels=MAX_PIXELS)

    def digest(self) -> str:
        digest = hashlib.sha256(self.labels.numpy().tobytes())
        if self.pixels is not None:
            digest.update(self.pixels.numpy().tobytes())
        else:
            files = LocalFiles(self.root)
            for name in self.names:
                digest.update(f"{name}\0{files.size(name)}\n".encode())
        return digest.hexdigest()


def _open(dataset: str, root: Path, layout: Layout, split: str | None) -> tuple[list[str], _Split]:
    """Return the classes and one split, or the whole where there are none."""
    import torchvision.datasets  # takes seconds

    options: dict[str, Any] = {} if split is None else {"split": split}
    if layout.images == "loader":
        options["loader"] = str  # the path instead of the image
    try:
        found = getattr(torchvision.datasets, dataset)(str(root), download=False, **options)
        classes, parts = _classes(dataset, found), _parts(dataset, root, found, layout, split)
        parts.digest()  # looks at every file, so one that is missing is met here
    except OSError as error:
        if error.errno not in BAD_ITSELF:
            raise
        raise DataError(
            f"torchvision cannot read {dataset} under {root}: {error}", "unpack it again"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # readers of damaged tables raise almost anything
        reason = str(error).partition(" You can use download")[0] or type(error).__name__
        hint = "" if isinstance(error, ImportError) else "unpack it again"
        raise DataError(f"torchvision cannot read {dataset} under {root}: {reason}", hint) from None
    if not len(parts.labels):
        raise DataError(f"{dataset} under {root} holds no images of split {split}")
    return classes, parts


def _classes(dataset: str, found: Any) -> list[str]:
    if dataset in ("GTSRB", "SVHN"):  # named by numbers alone
        return [str(number) for number in range(43 if dataset == "GTSRB" else 10)]
    names = found.categories if dataset == "Caltech101" else found.classes
    return [name if isinstance(name, str) else ", ".join(name) for name in names]


def _parts(dataset: str, root: Path, found: Any, layout: Layout, split: str | None) -> _Split:
    if layout.images == "data":
        pixels = torch.from_numpy(np.ascontiguousarray(found.data.transpose(0, 2, 3, 1)))
        labels = torch.from_numpy(np.asarray(found.labels).astype(np.int64))
        names = [f"{split}/{number}" for number in range(len(labels))]
        return _Split(root, names, labels, pixels)
    if dataset == "Caltech101":
        folder = root / layout.needs[0]
        pairs = [
            (folder / found.categories[label] / f"image_{number:04d}.jpg", label)
            for number, label in zip(found.index, found.y, strict=True)
        ]
    elif dataset == "GTSRB":  # torchvision has no public way to the paths of these two
        pairs = found._samples
    elif dataset == "OxfordIIITPet":
        pairs = list(zip(found._images, found._labels, strict=True))
    else:
        pairs = [found[index] for index in range(len(found))]
    names = [Path(path).relative_to(root).as_posix() for path, _ in pairs]
    return _Split(root, names, torch.tensor([int(label) for _, label in pairs]))
