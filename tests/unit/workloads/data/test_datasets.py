"""From a store to batches: training forms, evaluation's views, sizes over the epochs."""

import numpy as np
import pytest
import torch
from PIL import Image

from workloads.config.data import DigitsConfig
from workloads.config.images import AugmentConfig, ImagesConfig, RandomResizedCropConfig
from workloads.config.train import ImageSizeStep
from workloads.data.bundle import PixelScale
from workloads.data.datasets import EvalImages, size_in, train_dataset
from workloads.data.errors import DataError
from workloads.data.sources import build_data, build_eval_data
from workloads.data.store import SourceImages

IMAGES = ImagesConfig(size=16, resize=20)
VARIED = AugmentConfig(crop=RandomResizedCropConfig(name="random_resized_crop"), flip=0.5)


class Shapes:
    """Images of different sizes; a store."""

    def __init__(self, *shapes: tuple[int, int]) -> None:
        random = np.random.default_rng(1)
        self.images = [
            torch.from_numpy(random.integers(0, 256, (*shape, 3), dtype=np.uint8))
            for shape in shapes
        ]
        self.labels = torch.arange(len(shapes))
        self.names = [f"{number}.jpg" for number in range(len(shapes))]

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int) -> torch.Tensor:
        return self.images[index]


SHAPES = ((30, 40), (64, 20), (16, 16), (21, 21), (9, 300), (20, 33))


def source() -> SourceImages:
    return SourceImages(Shapes(*SHAPES), Shapes(*SHAPES), ["a"] * 6, in_channels=3, digest="")


def test_a_form_depends_on_seed_epoch_and_image_alone() -> None:
    dataset = train_dataset(source(), IMAGES, VARIED, seed=1)
    again = train_dataset(source(), IMAGES, VARIED, seed=1)
    whole, labels = dataset.get_batch(torch.arange(6), 2)
    assert whole.shape == (6, 3, 16, 16)
    assert labels.tolist() == [0, 1, 2, 3, 4, 5]
    some = torch.tensor([5, 0, 0, 3])
    batch, labels = again.get_batch(some, 2)
    assert torch.equal(batch, whole[some])
    assert labels.tolist() == [5, 0, 0, 3]
    other = train_dataset(source(), IMAGES, VARIED, seed=2)
    for changed in (dataset.get_batch(torch.arange(6), 3), other.get_batch(torch.arange(6), 2)):
        differs = (changed[0] != whole).flatten(1).any(dim=1)
        assert int(differs.sum()) >= 5


def test_sizes_change_with_the_epochs() -> None:
    steps = (ImageSizeStep(from_epoch=0, size=8), ImageSizeStep(from_epoch=3, size=12))
    assert [size_in(steps, epoch, 16) for epoch in range(5)] == [8, 8, 8, 12, 12]
    assert size_in((), 9, 16) == 16
    dataset = train_dataset(source(), IMAGES, VARIED, progressive=steps, seed=1)
    assert dataset.get_batch(torch.arange(2), 2)[0].shape == (2, 3, 8, 8)
    assert dataset.get_batch(torch.arange(2), 3)[0].shape == (2, 3, 12, 12)


@pytest.mark.parametrize("views", ["centre", "flip"])
def test_evaluation_takes_the_centre_as_torchvision_does(views: str) -> None:
    """Pillow's resize of the shorter side to whole pixels, then a box from a whole one on."""
    dataset = EvalImages(Shapes(*SHAPES), IMAGES, views)
    batch, _ = dataset.get_batch(torch.arange(4), 0)
    for index, (height, width) in enumerate(SHAPES[:4]):
        new = (20, int(20 * width / height)) if height <= width else (int(20 * height / width), 20)
        pixels = Image.fromarray(dataset._store.load(index).numpy())
        whole = np.asarray(pixels.resize(new[::-1], Image.Resampling.BILINEAR))
        top, left = round((new[0] - 16) / 2), round((new[1] - 16) / 2)
        want = whole[top : top + 16, left : left + 16].astype(int)
        assert np.abs(batch[index].permute(1, 2, 0).numpy() - want).max() <= 1
    assert torch.equal(dataset.get_batch(torch.tensor([2]), 7)[0][0], batch[2])


def test_ten_crops_are_five_views_of_the_whole_resized_image() -> None:
    dataset = EvalImages(Shapes(*SHAPES), IMAGES, "ten")
    batch, _ = dataset.get_batch(torch.tensor([5, 3]), 0)
    assert batch.shape == (2, 5, 3, 16, 16)
    image = dataset._store.load(5)  # 20 x 33: has its size already
    corners = [(2, 8), (0, 0), (0, 17), (4, 0), (4, 17)]
    for view, (top, left) in enumerate(corners):
        want = image[top : top + 16, left : left + 16].permute(2, 0, 1)
        assert torch.equal(batch[0, view], want)
    centre, _ = EvalImages(Shapes(*SHAPES), IMAGES).get_batch(torch.tensor([5, 3]), 0)
    assert torch.equal(batch[:, 0], centre)


def test_channels_lie_together_in_a_batch() -> None:
    batch, _ = train_dataset(source(), IMAGES, VARIED, seed=0).get_batch(torch.arange(4), 0)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    batch, _ = EvalImages(Shapes(*SHAPES), IMAGES).get_batch(torch.arange(4), 0)
    assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_pixels_become_numbers(channels_last: bool, together: bool) -> None:
    scale = PixelScale((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    batch = torch.randint(0, 256, (2, 5, 6, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    batch = batch if together else batch.contiguous()
    mean, std = (torch.tensor(values)[:, None, None] for values in (scale.mean, scale.std))
    numbers = scale(batch, channels_last=channels_last)
    torch.testing.assert_close(numbers, (batch.float() / 255 - mean) / std)
    form = torch.channels_last if channels_last else torch.contiguous_format
    assert numbers.is_contiguous(memory_format=form)
    views = scale(torch.stack([batch, batch], dim=1), channels_last=channels_last)
    assert torch.equal(views[:, 1], numbers)


def test_one_mean_serves_all_channels() -> None:
    numbers = PixelScale((0.5,), (0.25,), max_value=16.0)(torch.full((1, 3, 2, 2), 16).byte())
    assert numbers.flatten().unique().tolist() == [2.0]


def test_pixels_are_scaled_without_a_second_copy() -> None:
    """One float result and no more: a batch of 256 has 154 MB of them."""
    scale = PixelScale((0.5,), (0.5,))
    batch = torch.zeros(8, 3, 64, 64, dtype=torch.uint8)
    with torch.profiler.profile(profile_memory=True) as profile:
        scale(batch)
    taken = [event.self_cpu_memory_usage for event in profile.key_averages()]
    assert sum(max(amount, 0) for amount in taken) < 1.1 * 4 * batch.numel()


def test_scaling_compiles_without_a_break() -> None:
    scale = PixelScale((0.5, 0.4, 0.3), (0.5, 0.4, 0.3))
    batch = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    scale(batch)
    compiled = torch.compile(scale.__call__, backend="eager", fullgraph=True)
    assert torch.equal(compiled(batch), scale(batch))


@pytest.mark.parametrize("split", ["val", "train"])
def test_evaluation_knows_names_and_labels(split: str) -> None:
    images = DigitsConfig.usual_images
    data = build_eval_data(DigitsConfig(), images=images, split=split)
    bundle = build_data(DigitsConfig(), images=images, augment=AugmentConfig(), seed=0)
    count = 359 if split == "val" else 1438
    assert len(data.dataset) == len(data.names) == len(data.labels) == count
    batch, labels = data.dataset.get_batch(torch.arange(count), 0)
    assert torch.equal(labels, data.labels)
    assert torch.equal(batch, getattr(bundle, split).get_batch(torch.arange(count), 0)[0])
    assert (data.digest, data.num_classes, data.in_channels) == (bundle.digest, 10, 1)
    assert data.scale == bundle.scale
    views = build_eval_data(DigitsConfig(), images=images, views="ten").dataset
    assert views.get_batch(torch.arange(3), 0)[0].shape == (3, 5, 1, 8, 8)


def test_the_wrong_bytes_for_a_colour_are_met_at_once() -> None:
    augment = AugmentConfig(rand_augment={})
    with pytest.raises(DataError, match="rand_augment takes pixels from 0 to 255"):
        build_data(DigitsConfig(), images=DigitsConfig.usual_images, augment=augment, seed=0)
