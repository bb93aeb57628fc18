"""A folder of images, `train/<class>/*` and `val/<class>/*`, decoded when they are needed."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from workloads.data.files import ImageFiles
from workloads.data.peers import ALONE, Peers
from workloads.data.scan import (
    SPLITS,
    FolderIndex,
    Sample,
    find_bad_images,
    image_names,
    judge_bad_images,
    load_image,
    scan_image_folder,
)
from workloads.data.store import SourceImages


class FolderStore:
    """Images of a folder; an `ImageStore`.

    Args:
        files: Where the images are.
        samples: Their names and classes.
        max_pixels: Larger images are refused.
    """

    def __init__(self, files: ImageFiles, samples: Sequence[Sample], *, max_pixels: int) -> None:
        self.names: Sequence[str] = [name for name, _ in samples]
        self.labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
        self._files = files
        self._max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int) -> Tensor:
        """Return one image, uint8 (H, W, 3).

        Raises:
            DataError: With the path, if it cannot be decoded.
            OSError: The storage failed.
        """
        return torch.from_numpy(load_image(self._files, self.names[index], self._max_pixels))


def build_image_folder(
    *,
    path: str,
    on_bad_image: Literal["fail", "skip"] = "fail",
    check_images: bool = True,
    loader_workers: int = 0,
    max_pixels: int = 50_000_000,
    checked_splits: Sequence[str] = SPLITS,
    peers: Peers = ALONE,
) -> SourceImages:
    """Scan the folder, check its images and hand over both splits.

    `loader_workers` is for the loaders. Without `check_images` the digest holds names only, so
    that nothing but the folders is read. With it, each of the `peers` decodes its share of the
    `checked_splits`; a split that is not among them may be missing.

    Raises:
        DataError: If the folder is not laid out as it must be, or images are bad and count.
        OSError: The storage failed.
    """
    skipped: list[str] = []
    if check_images:
        index, reasons = _check_together(path, max_pixels, checked_splits, peers)
        names = _names_in(index, checked_splits)
        skipped = judge_bad_images(index, names, reasons, on_bad_image)
        index = index.without(set(skipped))
    else:
        index = scan_image_folder(path, checked_splits)
    return SourceImages(
        train=FolderStore(index.files, index.train, max_pixels=max_pixels),
        val=FolderStore(index.files, index.val, max_pixels=max_pixels),
        classes=index.classes,
        in_channels=3,
        digest=index.digest(with_sizes=check_images),
        skipped=skipped,
    )


def _names_in(index: FolderIndex, splits: Sequence[str]) -> list[str]:
    return [name for name in image_names(index) if name.partition("/")[0] in splits]


def _check_together(
    path: str, max_pixels: int, splits: Sequence[str], peers: Peers
) -> tuple[FolderIndex, dict[str, str]]:
    """Scan everything, decode this rank's share, and return what all ranks found bad."""
    index, error, found = None, None, {}
    try:
        index = scan_image_folder(path, splits)
        share = _names_in(index, splits)[peers.rank :: peers.world_size]
        found = find_bad_images(index.files, share, max_pixels)
    except Exception as reason:  # told after the others have heard what there is to hear
        error = reason
    together = peers.gather(found)
    if error is not None:
        raise error
    assert index is not None
    return index, {name: reason for part in together for name, reason in part.items()}
