"""Geometry: torchvision's rounding, Pillow's resize, no copies that are not needed."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from workloads.config.images import ImagesConfig, RandomResizedCropConfig
from workloads.data.transforms import (
    centre_box,
    crop,
    five_boxes,
    flip,
    middle,
    pad,
    random_box,
    resize,
    resize_for_crop,
    resized_shape,
)

CROP = RandomResizedCropConfig(name="random_resized_crop")


def picture(height: int, width: int, channels: int = 3) -> Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    planes = [127 + 80 * torch.sin(x / 9 + c) * torch.cos(y / (6 + c)) for c in range(channels)]
    return torch.stack(planes, dim=-1).to(torch.uint8)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(40, 60), (150, 230), (99, 101)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_is_pillows_to_a_level(name: str, shape: tuple[int, int], channels: int) -> None:
    image = picture(100, 150, channels)
    ours = resize(image, *shape, name).numpy()
    source = image.numpy() if channels == 3 else image.numpy()[..., 0]
    resampling = Image.Resampling[name.upper()]
    theirs = np.asarray(Image.fromarray(source).resize(shape[::-1], resampling))
    difference = np.abs(ours.reshape(theirs.shape).astype(int) - theirs)
    assert ours.shape == (*shape, channels)
    assert difference.max() <= 1


def test_resize_keeps_channels_together() -> None:
    """The fast path for bytes; its result is laid out as the batch is."""
    assert resize(crop(picture(100, 150), (3, 7, 50, 60)), 40, 40, "bilinear").is_contiguous()
    image = picture(40, 40)
    assert resize(image, 40, 40, "bilinear") is image


def test_a_crop_is_a_view() -> None:
    image = picture(10, 12)
    part = crop(image, (2, 3, 4, 5))
    assert part.shape == (4, 5, 3)
    assert part.untyped_storage().data_ptr() == image.untyped_storage().data_ptr()
    assert torch.equal(part[0, 0], image[2, 3])


@pytest.mark.parametrize(
    ("shape", "want"),
    [
        ((375, 500), (256, 341)),
        ((500, 375), (341, 256)),
        ((256, 256), (256, 256)),
        ((300, 299), (256, 256)),
        ((1, 3), (256, 768)),
    ],
)
def test_shorter_side_rounds_the_longer_down(shape: tuple[int, int], want: tuple[int, int]) -> None:
    assert resized_shape(*shape, 256, "shorter_side") == want
    assert resized_shape(*shape, 256, "squash") == (256, 256)


def test_the_centre_rounds_halves_to_even() -> None:
    """As torchvision: the box begins at round((side - size) / 2) in Python's rounding."""
    assert centre_box(256, 341, 224) == (16, 58, 224, 224)
    assert centre_box(227, 229, 224) == (2, 2, 224, 224)
    assert centre_box(224, 225, 224) == (0, 0, 224, 224)


def test_five_boxes_lie_in_the_corners_of_the_whole_image() -> None:
    boxes = five_boxes(256, 341, 224)
    assert boxes == [
        (16, 58, 224, 224),
        (0, 0, 224, 224),
        (0, 117, 224, 224),
        (32, 0, 224, 224),
        (32, 117, 224, 224),
    ]


@pytest.mark.parametrize(
    ("images", "shape", "want"),
    [
        (ImagesConfig(size=32, resize=40), (60, 90), (40, 60)),
        (ImagesConfig(size=32, resize=40, resize_mode="squash"), (60, 90), (40, 40)),
        (ImagesConfig(size=32, resize=None), (32, 32), (32, 32)),
        (ImagesConfig(size=32, resize=None), (28, 56), (32, 64)),
        (ImagesConfig(size=32, resize=32), (60, 32), (60, 32)),
    ],
    ids=str,
)
def test_resize_for_crop(
    images: ImagesConfig, shape: tuple[int, int], want: tuple[int, int]
) -> None:
    assert resize_for_crop(picture(*shape), images).shape == (*want, 3)


def test_another_size_scales_the_resize_along() -> None:
    images = ImagesConfig(size=224, resize=256)
    assert resize_for_crop(picture(300, 300), images, 112).shape == (128, 128, 3)
    images = ImagesConfig(size=8, resize=None)
    assert resize_for_crop(picture(8, 8), images, 16).shape == (16, 16, 3)


def test_of_a_very_long_image_the_middle_is_taken() -> None:
    image = picture(2, 5000)
    assert middle(image).shape == (2, 32, 3)
    assert torch.equal(middle(image), image[:, 2484:2516])
    assert middle(picture(33, 2)).shape == (32, 2, 3)
    assert resize_for_crop(image, ImagesConfig(size=32, resize=40)).shape == (40, 640, 3)
    assert middle(picture(4, 64)).shape == (4, 64, 3)


def test_random_boxes_follow_their_distribution() -> None:
    """Of a square image nearly every box fits, so shares and ratios stay uniform."""
    random = generator()
    config = RandomResizedCropConfig(
        name="random_resized_crop", min_area=0.1, max_area=0.5, min_ratio=0.5, max_ratio=2.0
    )
    boxes = [random_box(1000, 1000, config, random) for _ in range(4000)]
    for top, left, height, width in boxes:
        assert 0 <= top <= 1000 - height
        assert 0 <= left <= 1000 - width
    area = np.array([h * w / 1e6 for _, _, h, w in boxes])
    log_ratio = np.array([math.log(w / h) for _, _, h, w in boxes])
    assert area.min() > 0.099
    assert area.max() < 0.501
    assert abs(area.mean() - 0.3) < 0.006
    assert np.abs(log_ratio).max() < math.log(2) + 0.01
    assert abs(log_ratio.mean()) < 0.02
    assert abs(log_ratio.std() - 2 * math.log(2) / math.sqrt(12)) < 0.01
    down = np.array([top / (1000 - h) for top, _, h, _ in boxes])
    right = np.array([left / (1000 - w) for _, left, _, w in boxes])
    assert abs(down.mean() - 0.5) < 0.015
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.05
    assert down.min() < 0.002
    assert down.max() > 0.998


@pytest.mark.parametrize(
    ("shape", "want"),
    [((3, 2000), (0, 998, 3, 4)), ((2000, 3), (998, 0, 4, 3)), ((1, 1), (0, 0, 1, 1))],
)
def test_where_no_box_fits_the_largest_centred_one_is_taken(
    shape: tuple[int, int], want: tuple[int, int, int, int]
) -> None:
    config = CROP.model_copy(update={"min_area": 0.9})
    assert random_box(*shape, config, generator()) == want


def test_pad_and_flip() -> None:
    image = picture(4, 5)
    padded = pad(image, 2)
    assert padded.shape == (8, 9, 3)
    assert torch.equal(padded[2:6, 2:7], image)
    assert int(padded.sum()) == int(image.sum())
    assert torch.equal(flip(image)[:, 0], image[:, -1])
