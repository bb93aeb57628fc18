"""From a store of images to batches: varied for training, in fixed views for evaluation."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from workloads.config.images import AugmentConfig, ImagesConfig
from workloads.config.train import Crops, ImageSizeStep
from workloads.data.augment import Augmentation
from workloads.data.bundle import ImageDataset
from workloads.data.in_memory import BatchedTrainImages, MemoryStore, can_batch
from workloads.data.store import ImageStore, SourceImages
from workloads.data.transforms import (
    centre_box,
    crop,
    five_boxes,
    resize_for_crop,
)


def image_random(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the generator of an image's draws in an epoch: place `index` of a counter's stream."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, index]))


class TrainImages:
    """Images varied one by one.

    Args:
        images: What the network sees of an image.
        augmentation: How it is varied.
        progressive: Sizes from epochs on; empty for `images.size` throughout.
        seed: Decides the draws, together with epoch and image.
    """

    def __init__(
        self,
        store: ImageStore,
        images: ImagesConfig,
        augmentation: Augmentation,
        *,
        progressive: Sequence[ImageSizeStep] = (),
        seed: int,
    ) -> None:
        self._store = store
        self._images = images
        self._augmentation = augmentation
        self._progressive = tuple(progressive)
        self._seed = seed

    def __len__(self) -> int:
        return len(self._store)

    def get_batch(self, indices: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Return images (B, C, S, S) and classes (B,) at `indices` (B,), S being the epoch's size.

        Raises:
            DataError: With the image's name, if one cannot be read.
        """
        size = size_in(self._progressive, epoch, self._images.size)
        batch = None
        for place, index in enumerate(indices.tolist()):
            random = image_random(self._seed, epoch, index)
            image = self._augmentation(self._store.load(index), size, random)
            if batch is None:
                batch = image.new_empty(len(indices), *image.shape)
            batch[place] = image
        assert batch is not None, "a batch holds an image"
        return batch.permute(0, 3, 1, 2), self._store.labels[indices]


class EvalImages:
    """Images as evaluation sees them: resized, and one or five squares cut out."""

    def __init__(self, store: ImageStore, images: ImagesConfig, views: Crops = "centre") -> None:
        self._store = store
        self._images = images
        self._views = views

    def __len__(self) -> int:
        return len(self._store)

    def get_batch(self, indices: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Return images and classes (B,) at `indices` (B,); the epoch changes nothing.

        The images are (B, C, S, S), or (B, 5, C, S, S) for ten crops: the centre, then the corners
        top left, top right, bottom left and bottom right.

        Raises:
            DataError: With the image's name, if one cannot be read.
        """
        batch = None
        size = self._images.size
        for place, index in enumerate(indices.tolist()):
            image = resize_for_crop(self._store.load(index), self._images)
            height, width, channels = image.shape
            ten = self._views == "ten"
            boxes = five_boxes if ten else _only_centre
            if batch is None:
                batch = image.new_empty(len(indices), 5 if ten else 1, size, size, channels)
            for view, box in enumerate(boxes(height, width, size)):
                batch[place, view] = crop(image, box)
        assert batch is not None, "a batch holds an image"
        batch = batch if self._views == "ten" else batch[:, 0]
        return batch.movedim(-1, -3), self._store.labels[indices]


def _only_centre(height: int, width: int, size: int) -> list[tuple[int, int, int, int]]:
    return [centre_box(height, width, size)]


def size_in(progressive: Sequence[ImageSizeStep], epoch: int, size: int) -> int:
    """Return the side of the training images in an epoch, in pixels."""
    sizes = [step.size for step in progressive if step.from_epoch <= epoch]
    return sizes[-1] if sizes else size


def train_dataset(
    source: SourceImages,
    images: ImagesConfig,
    augment: AugmentConfig,
    *,
    progressive: Sequence[ImageSizeStep] = (),
    seed: int,
) -> ImageDataset:
    """Return the training split; images in memory are varied a batch at a time where they can be.

    Raises:
        DataError: If the augmentation has no meaning for this source's bytes.
    """
    store = source.train
    if isinstance(store, MemoryStore) and can_batch(store, images, augment, progressive):
        return BatchedTrainImages(store, augment, seed=seed)
    augmentation = Augmentation(
        images, augment, max_value=source.max_value, channels=source.in_channels
    )
    return TrainImages(store, images, augmentation, progressive=progressive, seed=seed)


def eval_dataset(store: ImageStore, images: ImagesConfig, views: Crops = "centre") -> ImageDataset:
    """Return a split as evaluation sees it."""
    return EvalImages(store, images, views)
