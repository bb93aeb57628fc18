"""Images of one size that fit in memory, and batches of them without any Python per image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workloads.config.images import AugmentConfig, ImagesConfig, PadCropConfig
from workloads.config.train import ImageSizeStep


class MemoryStore:
    """Images in memory; an `ImageStore`.

    Attributes:
        pixels: uint8 (N, H, W, C).
        labels: (N,) int64.
        names: What to call each image.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, names: Sequence[str]) -> None:
        self.pixels = pixels
        self.labels = labels
        self.names = names

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, index: int) -> Tensor:
        """Return one image, uint8 (H, W, C)."""
        return self.pixels[index]


class Numbered(Sequence[str]):
    """Names made of a word and a number, such as `train/17`, without a list of them."""

    def __init__(self, word: str, count: int) -> None:
        self._word, self._count = word, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return f"{self._word}/{index % self._count}"


def can_batch(
    store: MemoryStore,
    images: ImagesConfig,
    augment: AugmentConfig,
    progressive: Sequence[ImageSizeStep] = (),
) -> bool:
    """Say whether a crop out of a border and a flip are all that is to be done."""
    size = store.pixels.shape[1:3]
    return (
        size == (images.size, images.size)
        and images.resize in (None, images.size)
        and all(step.size == images.size for step in progressive)
        and augment.crop.name in ("pad_crop", "centre_crop")
        and augment.color_jitter is None
        and augment.rand_augment is None
        and augment.erasing is None
    )


class BatchedTrainImages:
    """Training images shifted within a border of zeros and mirrored, a batch at a time.

    Shift and mirroring of image i in an epoch are row i of a table that (seed, epoch) decide.
    """

    def __init__(self, store: MemoryStore, augment: AugmentConfig, *, seed: int) -> None:
        self._store = store
        self._seed = seed
        self._padding = augment.crop.padding if isinstance(augment.crop, PadCropConfig) else 0
        self._flip = augment.flip
        self._epoch = -1
        self._draws = torch.zeros(0, 3, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._store)

    def get_batch(self, indices: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Return images (B, C, H, W) and classes (B,) at `indices` (B,)."""
        images, labels = self._store.pixels[indices], self._store.labels[indices]
        down, right, mirrored = self._drawn(epoch)[indices].unbind(1)
        if self._padding:
            images = _shifted(images, self._padding, down, right)
        if self._flip:
            mirrored = mirrored.bool()
            images[mirrored] = images[mirrored].flip(2)
        return images.permute(0, 3, 1, 2), labels

    def _drawn(self, epoch: int) -> Tensor:
        """Return rows down, to the right, and whether mirrored, of all images, (N, 3) int64."""
        if epoch != self._epoch:
            random = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
            count, shifts = len(self), 2 * self._padding + 1
            self._draws = torch.from_numpy(
                np.stack(
                    [
                        random.integers(0, shifts, size=count),
                        random.integers(0, shifts, size=count),
                        random.random(count) < self._flip,
                    ],
                    axis=1,
                )
            )
            self._epoch = epoch
        return self._draws


def _shifted(images: Tensor, border: int, down: Tensor, right: Tensor) -> Tensor:
    """Return boxes of the images' own size out of images (B, H, W, C) with a border of zeros.

    Args:
        down, right: Where each box begins, (B,) int64, from 0 to twice the border.
    """
    count, height, width, channels = images.shape
    tall, wide = height + 2 * border, width + 2 * border
    padded = images.new_zeros(count, tall, wide, channels)
    padded[:, border : border + height, border : border + width] = images
    # All boxes of all images as one view, whose rows lie together: choosing copies whole rows.
    image, row, column, _ = padded.stride()
    shape = (count, 2 * border + 1, 2 * border + 1, height, width * channels)
    boxes = padded.as_strided(shape, (image, row, column, row, 1))
    return boxes[torch.arange(count), down, right].view(count, height, width, channels)
