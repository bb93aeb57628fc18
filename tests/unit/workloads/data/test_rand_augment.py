"""RandAugment against timm's own operations, image by image, and the shares of its draws."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from workloads.config.images import ImagesConfig, RandAugmentConfig
from workloads.data.datasets import image_random
from workloads.data.rand_augment import OPERATIONS, Frame, RandAugment

TIMMS = {
    "auto_contrast": "AutoContrast",
    "equalize": "Equalize",
    "invert": "Invert",
    "rotate": "Rotate",
    "posterize": "PosterizeIncreasing",
    "solarize": "SolarizeIncreasing",
    "solarize_add": "SolarizeAdd",
    "color": "ColorIncreasing",
    "contrast": "ContrastIncreasing",
    "brightness": "BrightnessIncreasing",
    "sharpness": "SharpnessIncreasing",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateXRel",
    "translate_y": "TranslateYRel",
}


@pytest.fixture(scope="module")
def timms() -> ModuleType:
    """timm's module alone: the whole of timm takes seconds to import."""
    found = importlib.util.find_spec("timm")
    if found is None or found.origin is None:
        pytest.skip("timm is not installed")
    path = Path(found.origin).parent / "data" / "auto_augment.py"
    spec = importlib.util.spec_from_file_location("timms_auto_augment", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def picture() -> Image.Image:
    y, x = np.mgrid[0:48, 0:64]
    planes = [110 + 60 * np.sin(x / 8 + c) * np.cos(y / 6) + 20 * c for c in range(3)]
    noise = np.random.default_rng(0).normal(0, 6, (48, 64, 3))
    return Image.fromarray((np.stack(planes, axis=-1) + noise).clip(20, 230).astype(np.uint8))


def test_the_fifteen_operations_are_timms(timms: ModuleType) -> None:
    assert set(TIMMS) == set(OPERATIONS)
    assert sorted(TIMMS.values()) == sorted(timms._RAND_INCREASING_TRANSFORMS)


@pytest.mark.parametrize("resample", ["BILINEAR", "BICUBIC"])
@pytest.mark.parametrize("magnitude", [0.0, 4.3, 8.7, 9.0, 9.99])
@pytest.mark.parametrize(
    ("name", "sign"),
    [
        (name, sign)
        for name, operation in OPERATIONS.items()
        for sign in ([1.0, -1.0] if operation.signed else [1.0])
    ],
)
def test_an_operation_gives_timms_bytes(
    name: str,
    sign: float,
    magnitude: float,
    resample: str,
    timms: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    operation = OPERATIONS[name]
    frame = Frame((124, 116, 104), Image.Resampling[resample])
    monkeypatch.setattr(timms, "_randomly_negate", lambda value: sign * value)
    options = {"img_mean": frame.fill, "interpolation": frame.resample}
    want = timms.AugmentOp(TIMMS[name], prob=1.0, magnitude=magnitude, hparams=options)(picture())
    got = operation.apply(picture(), operation.argument(sign * magnitude / 10), frame)
    np.testing.assert_array_equal(np.asarray(got), np.asarray(want))


def test_the_largest_magnitude_leaves_something_to_see() -> None:
    frame = Frame((0, 0, 0), Image.Resampling.BILINEAR)
    posterize = OPERATIONS["posterize"]
    kept = posterize.apply(picture(), posterize.argument(1.0), frame)
    assert np.unique(np.asarray(kept)).tolist() == [0, 128]


def test_draws_have_their_shares() -> None:
    augment = RandAugment(RandAugmentConfig(num_ops=2), ImagesConfig())
    draws = [draw for index in range(3000) for draw in augment.draw(image_random(0, 0, index))]
    assert abs(len(draws) / 6000 - 0.5) < 0.02
    names = [name for name, _ in draws]
    for name in OPERATIONS:
        assert abs(names.count(name) / len(names) - 1 / 15) < 0.015
    size = np.array([abs(share) for _, share in draws])
    assert abs(size.mean() - 0.9) < 0.005
    assert abs(size.std() - 0.05) < 0.005
    assert size.max() == 1.0  # two deviations above 9 it is cut off
    signs = [share < 0 for name, share in draws if OPERATIONS[name].signed]
    assert abs(np.mean(signs) - 0.5) < 0.03
    assert all(share > 0 for name, share in draws if not OPERATIONS[name].signed)


def test_all_or_none_are_applied() -> None:
    image = torch.from_numpy(np.array(picture()))
    never = RandAugment(RandAugmentConfig(probability=0.0), ImagesConfig())
    assert torch.equal(never(image, image_random(0, 0, 0)), image)
    always = RandAugment(RandAugmentConfig(probability=1.0, num_ops=10), ImagesConfig())
    assert len(always.draw(image_random(0, 0, 0))) == 10


@pytest.mark.parametrize("channels", [1, 3])
def test_what_moves_in_is_the_mean(channels: int) -> None:
    images = ImagesConfig(mean=(0.2,) * channels, std=(0.2,) * channels)
    augment = RandAugment(RandAugmentConfig(), images, channels=channels)
    white = Image.new("L" if channels == 1 else "RGB", (8, 8), "white")
    moved = OPERATIONS["translate_x"].apply(white, -0.5, augment._frame)
    assert np.unique(np.asarray(moved)[:, :4]).tolist() == [51]
    one = RandAugment(RandAugmentConfig(), ImagesConfig(mean=(0.2,), std=(0.2,)), channels=channels)
    assert one._frame == augment._frame


@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_takes_gray_and_colour(channels: int) -> None:
    images = ImagesConfig(mean=(0.5,), std=(0.5,))
    config = RandAugmentConfig(num_ops=10, probability=1.0)
    augment = RandAugment(config, images, channels=channels)
    image = torch.from_numpy(np.array(picture()))[..., :channels].contiguous()
    seen: set[str] = set()
    for index in range(12):
        seen.update(name for name, _ in augment.draw(image_random(0, 0, index)))
        assert augment(image, image_random(0, 0, index)).shape == (48, 64, channels)
    assert seen == set(OPERATIONS)
