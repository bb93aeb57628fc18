"""Every image once, any world size, any start, any number of loader processes."""

import errno

import psutil
import pytest
import torch
from torch import Tensor

from workloads.config.data import DigitsConfig
from workloads.data import loaders
from workloads.data.errors import DataError
from workloads.data.loaders import (
    Loader,
    epoch_order,
    steps_per_epoch,
    train_batches,
    val_batches,
)
from workloads.data.sources import ImageDataset, build_data


def shifted_digits() -> ImageDataset:
    images, augment = DigitsConfig.usual_images, DigitsConfig.usual_augment
    return build_data(DigitsConfig(), images=images, augment=augment, seed=4).train


class Numbers:
    """Image i is the number i, plus the epoch."""

    def __init__(self, size: int, bad: int = -1) -> None:
        self.size, self.bad = size, bad

    def __len__(self) -> int:
        return self.size

    def get(self, index: int, epoch: int) -> tuple[Tensor, int]:
        if index == self.bad:
            raise DataError("train/cat/7.jpg: is cut short", "remove it")
        return torch.full((1, 1, 1), float(index + 1000 * epoch)), index

    def get_batch(self, indices: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        pairs = [self.get(index, epoch) for index in indices.tolist()]
        return torch.stack([image for image, _ in pairs]), torch.tensor([i for _, i in pairs])


def test_epoch_order_is_a_stateless_permutation() -> None:
    order = epoch_order(100, seed=1, epoch=2)
    assert sorted(order.tolist()) == list(range(100))
    torch.manual_seed(5)
    assert torch.equal(epoch_order(100, seed=1, epoch=2), order)
    for other in (epoch_order(100, 2, 1), epoch_order(100, 1, 3), epoch_order(100, 0, 2)):
        assert not torch.equal(other, order)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_share_the_same_global_batches(world_size: int) -> None:
    dataset, global_batch_size = Numbers(101), 12
    order = epoch_order(101, seed=3, epoch=5)
    ranks = [
        [
            labels.tolist()
            for _, labels in train_batches(
                dataset,
                seed=3,
                epoch=5,
                batch_size_per_worker=global_batch_size // world_size,
                rank=rank,
                world_size=world_size,
            )
        ]
        for rank in range(world_size)
    ]
    assert {len(steps) for steps in ranks} == {steps_per_epoch(101, 12)} == {8}
    together = [[i for part in parts for i in part] for parts in zip(*ranks, strict=True)]
    assert together == order[:96].reshape(8, 12).tolist()


@pytest.mark.parametrize("loader_workers", [0, 2])
def test_start_step_resumes_the_same_batches(loader_workers: int) -> None:
    train = shifted_digits()

    def batches(start_step: int) -> list[tuple[Tensor, Tensor]]:
        return list(
            train_batches(
                train,
                seed=4,
                epoch=1,
                start_step=start_step,
                batch_size_per_worker=200,
                loader_workers=loader_workers,
            )
        )

    for resumed, straight in zip(batches(5), batches(0)[5:], strict=True):
        assert torch.equal(resumed[0], straight[0])
        assert torch.equal(resumed[1], straight[1])
    assert batches(7) == []


def test_loader_processes_change_nothing() -> None:
    train = shifted_digits()

    def batches(loader_workers: int) -> list[tuple[Tensor, Tensor]]:
        options = {"batch_size_per_worker": 100, "rank": 1, "world_size": 2}
        return list(train_batches(train, seed=4, epoch=3, loader_workers=loader_workers, **options))

    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    for here, there in zip(batches(0), batches(2), strict=True):
        assert torch.equal(here[0], there[0])
        assert torch.equal(here[1], there[1])
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("loader_workers", [0, 1])
def test_a_data_error_stays_itself(loader_workers: int) -> None:
    batches = train_batches(
        Numbers(8, bad=3),
        seed=0,
        epoch=0,
        batch_size_per_worker=4,
        loader_workers=loader_workers,
    )
    with pytest.raises(DataError) as caught:
        list(batches)
    assert caught.value.message == "train/cat/7.jpg: is cut short"
    assert caught.value.hint == "remove it"


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("size", [1, 10, 24])
def test_validation_sees_every_image_once(size: int, world_size: int) -> None:
    seen: list[int] = []
    for rank in range(world_size):
        for indices, images, labels in val_batches(
            Numbers(size), batch_size=4, rank=rank, world_size=world_size
        ):
            assert len(indices) <= 4
            assert images.flatten().tolist() == indices.tolist() == labels.tolist()
            seen += indices.tolist()
    assert sorted(seen) == list(range(size))


def test_validation_with_loader_processes() -> None:
    batches = list(val_batches(Numbers(10), batch_size=3, loader_workers=2))
    assert [indices.tolist() for indices, _, _ in batches] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert all(torch.equal(indices, labels) for indices, _, labels in batches)


def test_too_few_images_for_one_step() -> None:
    with pytest.raises(DataError, match="10 training images do not fill one global batch of 64"):
        list(train_batches(Numbers(10), seed=0, epoch=0, batch_size_per_worker=32, world_size=2))


class Failing(Numbers):
    """Cannot read its images, for a reason that is not theirs."""

    def __init__(self, failure: Exception) -> None:
        super().__init__(8)
        self.failure = failure

    def get(self, index: int, epoch: int) -> tuple[Tensor, int]:
        raise self.failure


@pytest.mark.parametrize("loader_workers", [0, 1])
@pytest.mark.parametrize("failure", [OSError(errno.EIO, "io"), MemoryError("no room")], ids=repr)
def test_an_error_of_the_machine_stays_itself(failure: Exception, loader_workers: int) -> None:
    options = {"seed": 0, "epoch": 0, "batch_size_per_worker": 4}
    with pytest.raises(type(failure)) as caught:
        list(train_batches(Failing(failure), loader_workers=loader_workers, **options))
    assert caught.value.args == failure.args


def test_memory_is_pinned_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    class Recorder(loaders.DataLoader):
        def __init__(self, *arguments: object, pin_memory: bool, **options: object) -> None:
            asked.append(pin_memory)
            super().__init__(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loaders, "DataLoader", Recorder)
    options = {"seed": 0, "epoch": 0, "batch_size_per_worker": 4, "loader_workers": 1}
    for pin_memory in (True, False):
        list(train_batches(Numbers(8), pin_memory=pin_memory, **options))
    list(val_batches(Numbers(8), batch_size=8, loader_workers=1, pin_memory=True))
    assert asked == [True, False, True]


class Sizes(Numbers):
    """Image i is full of i; every third epoch has larger images."""

    def get_batch(self, indices: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        size = 8 if epoch % 3 else 12
        return indices.byte()[:, None, None, None].expand(-1, 3, size, size).clone(), indices


@pytest.mark.parametrize("loader_workers", [1, 2])
def test_a_batch_stays_what_it_is_while_others_are_made(loader_workers: int) -> None:
    """Processes write into the same memory again and again; what was handed over is not there."""
    with Loader(Sizes(200), loader_workers=loader_workers) as loader:
        for epoch in range(4):
            options = {"seed": 1, "epoch": epoch, "batch_size_per_worker": 5}
            kept = list(train_batches(loader, **options))
            assert len(kept) == 40
            for images, labels in kept:
                assert images.shape == (5, 3, *(2 * [8 if epoch % 3 else 12]))
                assert torch.equal(images.flatten(1).unique(dim=1)[:, 0], labels.byte())
            half = train_batches(loader, **options)
            next(half)  # and given up


def test_processes_stay_over_epochs_and_end_with_their_loader() -> None:
    this = psutil.Process()
    before = set(this.children())
    seen = set()
    with Loader(Numbers(20), loader_workers=2) as loader:
        for epoch in range(3):
            options = {"seed": 1, "epoch": epoch, "batch_size_per_worker": 5}
            assert len(list(train_batches(loader, **options))) == 4
            seen |= {child.pid for child in set(this.children()) - before}
            assert len(list(val_batches(loader, batch_size=6))) == 4
    assert len(seen) == 2
    _, alive = psutil.wait_procs([psutil.Process(p) for p in seen if psutil.pid_exists(p)], 10)
    assert not alive
