"""The built-in digits: a fixed split, stateless shifts, fast batches."""

import importlib.util

import pytest
import torch

from workloads.config.data import DigitsConfig
from workloads.config.images import AugmentConfig
from workloads.data.bundle import DataBundle
from workloads.data.digits import build_digits
from workloads.data.errors import DataError
from workloads.data.sources import build_data


def digits_with(*, seed: int = 0, shifted: bool = True, val_fraction: float = 0.2) -> DataBundle:
    return build_data(
        DigitsConfig(val_fraction=val_fraction),
        images=DigitsConfig.usual_images,
        augment=DigitsConfig.usual_augment if shifted else AugmentConfig(),
        seed=seed,
    )


@pytest.fixture(scope="module")
def digits() -> DataBundle:
    return digits_with()


def everything(bundle: DataBundle, split: str, epoch: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    dataset = getattr(bundle, split)
    return dataset.get_batch(torch.arange(len(dataset)), epoch)


def test_what_the_network_must_know(digits: DataBundle) -> None:
    assert (len(digits.train), len(digits.val)) == (1438, 359)
    assert (digits.in_channels, digits.num_classes) == (1, 10)
    assert digits.classes == list("0123456789")
    assert digits.skipped == []
    assert len(digits.digest) == 64
    images, labels = everything(digits, "val")
    assert images.shape == (359, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert int(images.max()) == 16
    assert labels.dtype == torch.int64


def test_pixels_are_scaled_to_mean_0_and_deviation_1() -> None:
    bundle = digits_with(shifted=False)
    images = bundle.scale(everything(bundle, "train")[0])
    assert abs(float(images.mean())) < 0.02
    assert abs(float(images.std()) - 1) < 0.02


def test_split_is_stratified_and_ignores_the_seed(digits: DataBundle) -> None:
    _, labels = everything(digits, "val")
    assert int(labels.bincount().min()) >= 35
    assert int(labels.bincount().max()) <= 37
    other = digits_with(seed=7)
    assert torch.equal(everything(other, "val")[0], everything(digits, "val")[0])
    assert torch.equal(everything(other, "train")[1], everything(digits, "train")[1])
    assert other.digest == digits.digest
    assert digits_with(val_fraction=0.3).digest != digits.digest


def test_the_split_stays_what_it_has_been() -> None:
    """A recorded split: another one would make old results and new ones incomparable."""
    numbers = [int(name.removeprefix("digits/")) for name in build_digits().val.names]
    assert numbers[:6] == [10, 28, 33, 41, 45, 52]
    assert sum(place * number for place, number in enumerate(numbers)) == 78668980


def test_splits_do_not_overlap() -> None:
    bundle = digits_with(shifted=False)
    train = {image.numpy().tobytes() for image in everything(bundle, "train")[0]}
    val = {image.numpy().tobytes() for image in everything(bundle, "val")[0]}
    assert len(train) + len(val) == 1797
    assert not train & val


def test_shifts_depend_on_seed_epoch_and_index_alone(digits: DataBundle) -> None:
    first = everything(digits, "train", epoch=0)[0].clone()
    second = everything(digits, "train", epoch=1)[0].clone()
    assert not torch.equal(first, second)
    again = digits_with()
    some = torch.tensor([900, 3, 3, 0])
    assert torch.equal(again.train.get_batch(some, 1)[0], second[some])
    assert torch.equal(again.train.get_batch(some, 0)[0], first[some])
    assert not torch.equal(everything(digits_with(seed=1), "train")[0], first)


def test_a_shift_moves_the_image_by_at_most_a_pixel() -> None:
    plain = everything(digits_with(shifted=False), "train")[0]
    moved = everything(digits_with(), "train")[0]
    padded = torch.nn.functional.pad(plain, (1, 1, 1, 1))
    candidates = torch.stack(
        [padded[..., y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    )
    match = (candidates == moved).flatten(2).all(dim=2)
    assert bool(match.any(dim=0).all())
    assert bool(match.any(dim=1).all())  # all nine shifts occur


def test_missing_scikit_learn_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="needs scikit-learn") as caught:
        build_digits()
    assert "every node" in caught.value.hint
