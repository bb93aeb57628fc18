"""Images as they lie somewhere, before anything is made of them: what every source hands over."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


class ImageStore(Protocol):
    """Labelled images by number, decoded but otherwise as they are.

    Loader processes take a copy, so a store must survive a pickle and a fork: files are opened
    where they are read.

    Attributes:
        labels: Class of each image, (N,) int64.
        names: What to call each image in messages and tables; a path relative to the source.
    """

    labels: Tensor
    names: Sequence[str]

    def __len__(self) -> int:
        """Return the number of images, N."""
        ...

    def load(self, index: int) -> Tensor:
        """Return one image, uint8 (H, W, C) with the source's number of channels.

        Raises:
            DataError: With the image's name, if it cannot be read.
        """
        ...


@dataclass(frozen=True)
class SourceImages:
    """A source: its two splits and what is known of them.

    Attributes:
        digest: SHA-256 of what identifies the data; equal on every machine with the same files.
        skipped: Images left out because they could not be read.
        max_value: The byte that stands for white.
    """

    train: ImageStore
    val: ImageStore
    classes: list[str]
    in_channels: int
    digest: str
    skipped: list[str] = field(default_factory=list)
    max_value: float = 255.0
