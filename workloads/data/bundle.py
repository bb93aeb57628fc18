"""What a data source hands over: two datasets and what a network must know of them."""

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


class ImageDataset(Protocol):
    """Labelled images by number.

    What `get` returns depends on the index and the epoch alone (and on the seed that the dataset
    was built with): no order of calls, no process and no resume can change it.
    """

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def get(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return one image, (C, H, W) float32, and its class, as seen in `epoch`."""
        ...

    def get_batch(self, indices: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Return the images (B, C, H, W) and classes (B,) int64 at `indices` (B,)."""
        ...


@dataclass(frozen=True)
class DataBundle:
    """Everything a training or an evaluation needs to know about its data."""

    train: ImageDataset
    val: ImageDataset
    classes: list[str]
    in_channels: int
    image_size: int
    digest: str
    """SHA-256 of what identifies the data; equal on every machine that holds the same files."""
    skipped: list[str] = field(default_factory=list)
    """Images left out because they could not be read."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)
