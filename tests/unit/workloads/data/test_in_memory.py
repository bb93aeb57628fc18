"""Batches of images in memory: the same form for an image in any batch, and every form occurs."""

import numpy as np
import pytest
import torch
from torch import Tensor

from workloads.config.images import (
    AugmentConfig,
    ColorJitterConfig,
    ErasingConfig,
    ImagesConfig,
    PadCropConfig,
    RandAugmentConfig,
    RandomCropConfig,
)
from workloads.config.train import ImageSizeStep
from workloads.data.datasets import TrainImages, train_dataset
from workloads.data.in_memory import BatchedTrainImages, MemoryStore, Numbered
from workloads.data.store import SourceImages

IMAGES = ImagesConfig(size=12, resize=None)


def pad_crop(padding: int = 2, flip: float = 0.5) -> AugmentConfig:
    return AugmentConfig(crop=PadCropConfig(name="pad_crop", padding=padding), flip=flip)


def store(count: int = 50, channels: int = 3) -> MemoryStore:
    random = np.random.default_rng(0)
    pixels = random.integers(1, 256, (count, 12, 12, channels), dtype=np.uint8)
    labels = torch.arange(count) % 7
    return MemoryStore(torch.from_numpy(pixels), labels, Numbered("train", count))


def forms(image: Tensor, padding: int) -> list[Tensor]:
    """All shifts of one image (C, H, W), then their mirror images."""
    padded = torch.nn.functional.pad(image, (padding,) * 4)
    moves = range(2 * padding + 1)
    shifted = [padded[:, y : y + 12, x : x + 12] for y in moves for x in moves]
    return shifted + [form.flip(2) for form in shifted]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_one_of_its_forms_and_every_form_occurs(channels: int) -> None:
    images = store(channels=channels)
    dataset = BatchedTrainImages(images, pad_crop(), seed=3)
    seen = set()
    for epoch in range(6):
        batch, labels = dataset.get_batch(torch.arange(50), epoch)
        assert batch.shape == (50, channels, 12, 12)
        assert batch.dtype == torch.uint8
        assert torch.equal(labels, images.labels)
        for index in range(50):
            plain = images.load(index).permute(2, 0, 1)
            (form,) = [
                i for i, form in enumerate(forms(plain, 2)) if torch.equal(form, batch[index])
            ]
            seen.add(form)
    assert len(seen) == 50


def test_a_form_depends_on_seed_epoch_and_image_alone() -> None:
    images = store()
    dataset, again = (BatchedTrainImages(images, pad_crop(), seed=3) for _ in range(2))
    whole = {epoch: dataset.get_batch(torch.arange(50), epoch)[0] for epoch in (0, 1)}
    some = torch.tensor([31, 2, 2, 49])
    for epoch in (1, 0):
        assert torch.equal(again.get_batch(some, epoch)[0], whole[epoch][some])
    assert not torch.equal(whole[0], whole[1])
    other = BatchedTrainImages(images, pad_crop(), seed=4).get_batch(torch.arange(50), 0)[0]
    assert not torch.equal(other, whole[0])


def test_the_store_stays_as_it_is() -> None:
    images = store()
    before = images.pixels.clone()
    batch, _ = BatchedTrainImages(images, pad_crop(flip=1.0), seed=0).get_batch(torch.arange(9), 0)
    batch.zero_()
    assert torch.equal(images.pixels, before)


def test_nothing_asked_for_changes_nothing() -> None:
    images = store()
    batch, _ = BatchedTrainImages(images, AugmentConfig(), seed=0).get_batch(torch.arange(9), 0)
    assert torch.equal(batch.permute(0, 2, 3, 1), images.pixels[:9])


@pytest.mark.parametrize(
    ("images", "augment", "progressive", "batched"),
    [
        (IMAGES, pad_crop(), (), True),
        (IMAGES, AugmentConfig(flip=0.5), (), True),
        (IMAGES, pad_crop(), (ImageSizeStep(from_epoch=0, size=12),), True),
        (IMAGES, pad_crop(), (ImageSizeStep(from_epoch=0, size=8),), False),
        (ImagesConfig(size=12, resize=14), pad_crop(), (), False),
        (ImagesConfig(size=24, resize=None), pad_crop(), (), False),
        (IMAGES, AugmentConfig(crop=RandomCropConfig(name="random_crop")), (), False),
        (IMAGES, pad_crop().model_copy(update={"erasing": ErasingConfig()}), (), False),
        (IMAGES, pad_crop().model_copy(update={"rand_augment": RandAugmentConfig()}), (), False),
        (IMAGES, pad_crop().model_copy(update={"color_jitter": ColorJitterConfig()}), (), False),
    ],
    ids=str,
)
def test_all_else_is_varied_one_by_one(
    images: ImagesConfig,
    augment: AugmentConfig,
    progressive: tuple[ImageSizeStep, ...],
    batched: bool,
) -> None:
    source = SourceImages(store(), store(), ["a"], in_channels=3, digest="")
    dataset = train_dataset(source, images, augment, progressive=progressive, seed=0)
    assert type(dataset) is (BatchedTrainImages if batched else TrainImages)
    batch, _ = dataset.get_batch(torch.tensor([4, 1, 4]), 0)
    size = progressive[0].size if progressive else images.size
    assert batch.shape == (3, 3, size, size)
    assert torch.equal(batch[0], batch[2])


def test_numbered_names() -> None:
    names = Numbered("val", 3)
    assert list(names) == ["val/0", "val/1", "val/2"]
    assert (names[-1], names[1:], len(names)) == ("val/2", ["val/1", "val/2"], 3)
    with pytest.raises(IndexError):
        names[3]
