"""What a data source hands over: two datasets and what a network must know of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


class ImageDataset(Protocol):
    """Labelled images by number, as bytes: they become floating-point numbers on the device.

    What `get_batch` returns depends on the indices and the epoch alone (and on the seed that the
    dataset was built with): no order of calls, no process and no resume can change it.
    """

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def get_batch(self, indices: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Return images and classes (B,) int64 at `indices` (B,), as seen in `epoch`.

        The images are uint8 (B, C, S, S), or (B, V, C, S, S) where the dataset gives V views of
        each image.
        """
        ...


@dataclass(frozen=True)
class PixelScale:
    """From bytes to what a network takes: (pixel / max_value - mean) / std, per channel.

    Attributes:
        mean: One number, or one per channel, of pixels scaled to [0, 1].
        std: Likewise.
        max_value: The byte that stands for white.
    """

    mean: Sequence[float]
    std: Sequence[float]
    max_value: float = 255.0
    _on_device: dict[torch.device, tuple[Tensor, Tensor]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __call__(self, images: Tensor, *, channels_last: bool = False) -> Tensor:
        """Return bytes (..., C, H, W) as float32 on the same device.

        Args:
            channels_last: The channels of a pixel lie together in memory; False gives planes.
        """
        scale, shift = self._constants(images.device)
        if channels_last:
            images = images.movedim(-3, -1).contiguous().movedim(-1, -3)
        else:
            images = images.contiguous()  # as bytes: a quarter of what it would be afterwards
        return torch.mul(images, scale).add_(shift)

    def _constants(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return factor and summand (C, 1, 1), sent to the device once: sending waits for it."""
        if device not in self._on_device:
            scale = [1.0 / (self.max_value * std) for std in self.std]
            shift = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
            both = torch.tensor([scale, shift], dtype=torch.float32, device=device)
            self._on_device[device] = both[0].view(-1, 1, 1), both[1].view(-1, 1, 1)
        return self._on_device[device]


@dataclass(frozen=True)
class DataBundle:
    """Everything a training needs to know about its data."""

    train: ImageDataset
    val: ImageDataset
    classes: list[str]
    in_channels: int
    scale: PixelScale
    digest: str
    """SHA-256 of what identifies the data; equal on every machine that holds the same files."""
    skipped: list[str] = field(default_factory=list)
    """Images left out because they could not be read."""
    train_names: Sequence[str] = ()
    """What to call each training image in messages."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)


@dataclass(frozen=True)
class EvalData:
    """Everything an evaluation needs to know about its data.

    Attributes:
        dataset: The images of one split, in the form that `images` and `views` ask for.
        names: What to call each image; a path relative to the source where there is one.
        labels: Class of each image, (N,) int64.
        digest: SHA-256 of what identifies the data; equal on every machine with the same files.
        skipped: Images left out because they could not be read.
    """

    dataset: ImageDataset
    names: Sequence[str]
    labels: Tensor
    classes: list[str]
    in_channels: int
    scale: PixelScale
    digest: str
    skipped: list[str] = field(default_factory=list)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)
