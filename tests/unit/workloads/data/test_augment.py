"""Training forms of one image: what is drawn, and that nothing else decides."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from workloads.config.images import (
    AugmentConfig,
    CentreCropConfig,
    ColorJitterConfig,
    ErasingConfig,
    ImagesConfig,
    PadCropConfig,
    RandAugmentConfig,
    RandomCropConfig,
    RandomResizedCropConfig,
)
from workloads.data.augment import Augmentation, Eraser
from workloads.data.colour import jitter_colours, shift_hue, to_pillow
from workloads.data.datasets import image_random
from workloads.data.errors import DataError

CROPS = [
    RandomResizedCropConfig(name="random_resized_crop"),
    PadCropConfig(name="pad_crop", padding=3),
    RandomCropConfig(name="random_crop"),
    CentreCropConfig(),
]
IMAGES = ImagesConfig(size=16, resize=20)
FULL = AugmentConfig(
    crop=CROPS[0],
    flip=0.5,
    rand_augment=RandAugmentConfig(),
    erasing=ErasingConfig(probability=1.0),
)


def noise(height: int = 30, width: int = 40, channels: int = 3) -> Tensor:
    random = np.random.default_rng(0)
    return torch.from_numpy(random.integers(0, 256, (height, width, channels), dtype=np.uint8))


@pytest.mark.parametrize("size", [16, 11, 24])
@pytest.mark.parametrize("crop", CROPS, ids=lambda crop: crop.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_crop_gives_the_size_asked_for(crop: AugmentConfig, size: int, channels: int) -> None:
    augment = AugmentConfig(crop=crop, flip=0.5)
    augmentation = Augmentation(IMAGES, augment, channels=channels)
    for shape in ((30, 40), (16, 16), (3, 200), (1, 1)):
        image = noise(*shape, channels)
        assert augmentation(image, size, image_random(0, 0, 0)).shape == (size, size, channels)


@pytest.mark.parametrize("augment", [FULL, FULL.model_copy(update={"rand_augment": None})])
def test_the_generator_decides_everything(augment: AugmentConfig) -> None:
    augment = augment.model_copy(update={"color_jitter": ColorJitterConfig(hue=0.1)})
    augmentation, image = Augmentation(IMAGES, augment), noise()
    before = image.clone()

    def form(*key: int) -> Tensor:
        return augmentation(image, 16, image_random(*key))

    assert torch.equal(form(1, 2, 3), form(1, 2, 3))
    for other in ((0, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert not torch.equal(form(1, 2, 3), form(*other))
    assert torch.equal(image, before)


def test_random_crop_is_a_piece_of_what_evaluation_resizes() -> None:
    augmentation = Augmentation(IMAGES, AugmentConfig(crop=CROPS[2]))
    image = noise(20, 24)  # has the size already: nothing is resized
    places = set()
    for index in range(300):
        piece = augmentation(image, 16, image_random(0, 0, index))
        (place,) = [
            (y, x)
            for y in range(5)
            for x in range(9)
            if torch.equal(image[y : y + 16, x : x + 16], piece)
        ]
        places.add(place)
    assert len(places) == 45


def test_pad_crop_moves_within_the_border() -> None:
    augmentation = Augmentation(ImagesConfig(size=16, resize=None), AugmentConfig(crop=CROPS[1]))
    image = noise(16, 16)
    padded = torch.zeros(22, 22, 3, dtype=torch.uint8)
    padded[3:19, 3:19] = image
    places = set()
    for index in range(400):
        piece = augmentation(image, 16, image_random(0, 0, index))
        (place,) = [
            (y, x)
            for y in range(7)
            for x in range(7)
            if torch.equal(padded[y : y + 16, x : x + 16], piece)
        ]
        places.add(place)
    assert len(places) == 49


def test_flip_has_its_probability() -> None:
    image = noise(16, 16)

    def share(flip: float) -> float:
        augmentation = Augmentation(ImagesConfig(size=16, resize=None), AugmentConfig(flip=flip))
        forms = [augmentation(image, 16, image_random(0, 0, index)) for index in range(400)]
        assert all(torch.equal(f, image) or torch.equal(f, image.flip(1)) for f in forms)
        return sum(torch.equal(f, image.flip(1)) for f in forms) / 400

    assert share(0.0) == 0.0
    assert share(1.0) == 1.0
    assert abs(share(0.3) - 0.3) < 0.08


def test_colours_of_other_bytes_are_refused() -> None:
    augment = AugmentConfig(color_jitter=ColorJitterConfig())
    with pytest.raises(
        DataError, match=r"augment\.color_jitter takes pixels from 0 to 255"
    ) as error:
        Augmentation(IMAGES, augment, max_value=16.0, channels=1)
    assert "leave augment.color_jitter out" in error.value.hint


class Scripted:
    """A generator that gives what it was told to."""

    def __init__(self, order: list[int], draws: list[float]) -> None:
        self.order, self.draws = order, draws

    def permutation(self, count: int) -> np.ndarray:
        return np.array(self.order)

    def random(self, count: int) -> np.ndarray:
        return np.array(self.draws)


@pytest.mark.parametrize(
    ("only", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.6), (0.5, 1.0), (0.75, 1.2)])
def test_factors_lie_around_one(
    only: str, enhancer: Callable[..., ImageEnhance.Contrast], draw: float, factor: float
) -> None:
    zero = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    config = ColorJitterConfig(**{**zero, only: 0.4})
    image = noise()
    ours = jitter_colours(image, config, Scripted([3, 2, 1, 0], [draw] * 4))  # type: ignore[arg-type]
    theirs = enhancer(Image.fromarray(image.numpy())).enhance(factor)
    np.testing.assert_array_equal(ours.numpy(), np.asarray(theirs))


def test_the_order_of_colours_matters_and_is_drawn() -> None:
    config, image = ColorJitterConfig(contrast=0.9, saturation=0.0), noise()
    one = jitter_colours(image, config, Scripted([0, 1, 2, 3], [0.9, 0.1, 0.5, 0.5]))  # type: ignore[arg-type]
    two = jitter_colours(image, config, Scripted([1, 0, 2, 3], [0.9, 0.1, 0.5, 0.5]))  # type: ignore[arg-type]
    assert not torch.equal(one, two)


def test_hue_goes_around_the_circle() -> None:
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    assert np.asarray(shift_hue(red, 0.0)).tolist() == np.asarray(red).tolist()
    green = np.asarray(shift_hue(red, 1 / 3))[0, 0]
    blue = np.asarray(shift_hue(red, -1 / 3))[0, 0]
    assert (green[1] > 250, green[0] < 12, green[2] < 12) == (True, True, True)
    assert (blue[2] > 250, blue[0] < 12, blue[1] < 12) == (True, True, True)


def test_gray_images_have_no_colours_to_vary() -> None:
    image = noise(channels=1)
    config = ColorJitterConfig(brightness=0.0, contrast=0.0, saturation=1.0, hue=0.5)
    assert torch.equal(jitter_colours(image, config, image_random(0, 0, 0)), image)
    assert to_pillow(image).mode == "L"


def test_erased_boxes_have_their_area_and_ratio() -> None:
    config = ErasingConfig(probability=0.25, fill="mean", min_area=0.05, max_area=0.3)
    eraser, image = Eraser(config, ImagesConfig()), torch.zeros(100, 100, 3, dtype=torch.uint8)
    mean = [round(255 * value) for value in ImagesConfig().mean]
    areas = []
    for index in range(2000):
        erased = (eraser(image, image_random(0, 0, index)) != 0).all(dim=-1)
        rows, columns = erased.any(dim=1), erased.any(dim=0)
        areas.append(int(erased.sum()) / 1e4)
        if areas[-1]:
            height, width = int(rows.sum()), int(columns.sum())
            assert height * width == int(erased.sum())
            assert 0.27 < height / width < 3.7
            assert 0.045 < areas[-1] < 0.31
    boxes = [area for area in areas if area]
    assert abs(len(boxes) / 2000 - 0.25) < 0.03
    assert abs(np.mean(boxes) - 0.175) < 0.01
    whole = eraser(image, image_random(0, 0, areas.index(boxes[0])))
    assert whole.flatten(0, 1).unique(dim=0).tolist() == [[0, 0, 0], mean]


def test_noise_has_the_images_mean_and_deviation() -> None:
    images = ImagesConfig(mean=(0.5, 0.45, 0.4), std=(0.1, 0.12, 0.14))  # hardly anything clipped
    config = ErasingConfig(probability=1.0, min_area=0.5, max_area=0.6, min_ratio=0.9)
    eraser, image = Eraser(config, images), torch.zeros(200, 200, 3, dtype=torch.uint8)
    erased = eraser(image, image_random(0, 0, 0))
    values = erased[(erased != 0).any(dim=-1)].float() / 255
    assert len(values) > 18_000
    for channel in range(3):
        assert abs(float(values[:, channel].mean()) - images.mean[channel]) < 0.005
        assert abs(float(values[:, channel].std()) - images.std[channel]) < 0.005
    assert int(image.sum()) == 0


def test_noise_stays_within_black_and_white() -> None:
    images = ImagesConfig(size=8, resize=None, mean=(0.3,), std=(0.4,))
    config = ErasingConfig(probability=1.0, min_area=0.3, max_area=0.5, min_ratio=0.9)
    eraser = Eraser(config, images, max_value=16.0)
    erased = eraser(torch.zeros(30, 30, 1, dtype=torch.uint8), image_random(0, 0, 1))
    assert int(erased.max()) == 16
