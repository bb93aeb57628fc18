"""The built-in digits: a fixed split, stateless shifts, fast batches."""

import importlib.util

import pytest
import torch

from workloads.config.data import DigitsConfig
from workloads.data.bundle import DataBundle
from workloads.data.digits import build_digits
from workloads.data.errors import DataError
from workloads.data.sources import build_data


@pytest.fixture(scope="module")
def digits() -> DataBundle:
    return build_data(DigitsConfig(), seed=0)


def everything(bundle: DataBundle, split: str, epoch: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    dataset = getattr(bundle, split)
    return dataset.get_batch(torch.arange(len(dataset)), epoch)


def test_what_the_network_must_know(digits: DataBundle) -> None:
    assert (len(digits.train), len(digits.val)) == (1438, 359)
    assert (digits.in_channels, digits.image_size, digits.num_classes) == (1, 8, 10)
    assert digits.classes == list("0123456789")
    assert digits.skipped == []
    assert len(digits.digest) == 64
    images, labels = everything(digits, "val")
    assert images.shape == (359, 1, 8, 8)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64


def test_pixels_are_normalised() -> None:
    images, _ = everything(build_digits(seed=0, augment=False), "train")
    assert abs(float(images.mean())) < 0.02
    assert abs(float(images.std()) - 1) < 0.02


def test_split_is_stratified_and_ignores_the_seed(digits: DataBundle) -> None:
    _, labels = everything(digits, "val")
    assert int(labels.bincount().min()) >= 35
    assert int(labels.bincount().max()) <= 37
    other = build_digits(seed=7)
    assert torch.equal(everything(other, "val")[0], everything(digits, "val")[0])
    assert torch.equal(everything(other, "train")[1], everything(digits, "train")[1])
    assert other.digest == digits.digest
    assert build_digits(seed=0, val_fraction=0.3).digest != digits.digest


def test_splits_do_not_overlap() -> None:
    bundle = build_digits(seed=0, augment=False)
    train = {image.numpy().tobytes() for image in everything(bundle, "train")[0]}
    val = {image.numpy().tobytes() for image in everything(bundle, "val")[0]}
    assert len(train) + len(val) == 1797
    assert not train & val


def test_shifts_depend_on_seed_epoch_and_index_alone(digits: DataBundle) -> None:
    first = everything(digits, "train", epoch=0)[0].clone()
    second = everything(digits, "train", epoch=1)[0].clone()
    assert not torch.equal(first, second)
    again = build_digits(seed=0)
    some = torch.tensor([900, 3, 3, 0])
    assert torch.equal(again.train.get_batch(some, 1)[0], second[some])
    assert torch.equal(again.train.get_batch(some, 0)[0], first[some])
    image, label = again.train.get(900, 1)
    assert torch.equal(image, second[900])
    assert label == int(everything(digits, "train")[1][900])
    assert not torch.equal(everything(build_digits(seed=1), "train")[0], first)


def test_a_shift_moves_the_image_by_at_most_a_pixel() -> None:
    plain = everything(build_digits(seed=0, augment=False), "train")[0]
    moved = everything(build_digits(seed=0), "train")[0]
    padded = torch.nn.functional.pad(plain, (1, 1, 1, 1), value=float(plain.min()))
    candidates = torch.stack(
        [padded[..., y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    )
    match = (candidates - moved).abs().amax(dim=(2, 3, 4)) < 1e-5
    assert bool(match.any(dim=0).all())
    assert bool(match.any(dim=1).all())  # all nine shifts occur


def test_missing_scikit_learn_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="needs scikit-learn") as caught:
        build_digits(seed=0)
    assert "every node" in caught.value.hint
