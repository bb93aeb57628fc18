"""Which images form which batch on which rank: pure functions of (seed, epoch, step, rank).

Nothing here draws from torch's global generator and nothing but processes outlives an epoch, so a
resumed training sees the batches that an uninterrupted one would have seen, and loader processes
change the speed only.
"""

from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from workloads.data.bundle import ImageDataset
from workloads.data.errors import DataError

_CARRIED = (DataError, OSError, MemoryError)
"""Errors whose kind decides whether a retry makes sense."""
_AHEAD = 2
"""Batches that a process makes before they are asked for."""
_SLOTS = _AHEAD + 2
"""Pieces of shared memory per process. A process is told to make batch k + 2 when batch k is
fetched, so when it comes to batch k + 4, batch k has been copied."""


def epoch_order(num_images: int, seed: int, epoch: int) -> Tensor:
    """Return the order of the images in one epoch, (num_images,) int64, the same on all ranks."""
    mixed = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(mixed) & (2**63 - 1))
    return torch.randperm(num_images, generator=generator)


def steps_per_epoch(num_images: int, global_batch_size: int) -> int:
    """Return the number of full global batches in an epoch.

    Raises:
        DataError: If there is not even one.
    """
    if num_images < global_batch_size:
        raise DataError(
            f"{num_images} training images do not fill one global batch of {global_batch_size}",
            "choose a smaller global_batch_size",
        )
    return num_images // global_batch_size


class Loader:
    """A dataset and the processes that make its batches, which stay over the epochs.

    A process writes its batches into a few pieces of shared memory, in turn, and hands over no
    more than a handle. It starts with the first batches asked for; `close`, or leaving the `with`
    block, ends it.

    Args:
        loader_workers: Processes; with 0, batches are made where they are asked for.
        pin_memory: From pinned memory a copy to a GPU goes on beside the computation.
    """

    def __init__(
        self, dataset: ImageDataset, *, loader_workers: int = 0, pin_memory: bool = False
    ) -> None:
        self.dataset = dataset
        self._plan = _Plan()
        self._mapped: deque[Tensor] = deque(maxlen=_SLOTS * loader_workers)
        self._loader: DataLoader[Any] | None = None
        if loader_workers:
            self._loader = DataLoader(
                _Batches(dataset),
                batch_size=None,
                sampler=self._plan,
                num_workers=loader_workers,
                prefetch_factor=_AHEAD,
                collate_fn=_as_it_is,
                pin_memory=pin_memory,
                persistent_workers=True,
                generator=torch.Generator(),  # its base seed would come from the global generator
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.dataset)

    def load(self, parts: list[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images and classes at each part's indices, as seen in `epoch`.

        One iteration at a time: beginning the next one gives up what is left of the one before.

        Raises:
            DataError: With the image's name, if one cannot be read.
            OSError: The storage failed.
        """
        if self._loader is None or not parts:
            for part in parts:
                yield self.dataset.get_batch(part, epoch)
            return
        self._plan.batches = [(epoch, part.tolist()) for part in parts]
        for batch in self._loader:
            if isinstance(batch, _CARRIED):
                raise batch
            images, labels = batch
            if not images.is_pinned():  # pinned images are a copy already
                self._mapped.append(images)  # while it is held, its memory stays mapped
                images = images.clone()
            yield images, labels

    def close(self) -> None:
        """End the processes."""
        self._loader = None
        self._mapped.clear()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def train_batches(
    dataset: ImageDataset | Loader,
    *,
    seed: int,
    epoch: int,
    start_step: int = 0,
    batch_size_per_worker: int,
    rank: int = 0,
    world_size: int = 1,
    loader_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this rank's (images, labels) for the steps `start_step`, `start_step + 1`, ...

    `loader_workers` and `pin_memory` are for a dataset alone; a `Loader` has its own.

    Global batch s holds the images ``order[s * G : (s + 1) * G]`` with G = `batch_size_per_worker`
    * `world_size`; rank r takes its r-th contiguous part. So the world size does not change which
    images a step sees. The last, incomplete global batch of an epoch is left out; the next epoch
    has another order.
    """
    order = epoch_order(len(dataset), seed, epoch)
    global_batch_size = batch_size_per_worker * world_size
    parts = []
    for step in range(start_step, steps_per_epoch(len(dataset), global_batch_size)):
        first = step * global_batch_size + rank * batch_size_per_worker
        parts.append(order[first : first + batch_size_per_worker])
    return _load(dataset, parts, epoch, loader_workers, pin_memory)


def val_batches(
    dataset: ImageDataset | Loader,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    loader_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield this rank's (indices, images, labels): every image once over all ranks.

    `loader_workers` and `pin_memory` are for a dataset alone; a `Loader` has its own.

    The images are cut into the same consecutive batches for any number of ranks, and rank r takes
    the batches r, r + world_size, ...: the last bits of a network's output depend on how many
    images it sees at once. Nothing is padded; a rank may hold a batch less, or none.
    """
    batches = torch.arange(len(dataset)).split(batch_size)
    parts = [part for part in batches[rank::world_size] if len(part)]
    loaded = _load(dataset, parts, 0, loader_workers, pin_memory)
    for part, (images, labels) in zip(parts, loaded, strict=True):
        yield part, images, labels


def _load(
    dataset: ImageDataset | Loader,
    parts: list[Tensor],
    epoch: int,
    loader_workers: int,
    pin_memory: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(dataset, Loader):
        yield from dataset.load(parts, epoch)
        return
    workers = min(loader_workers, len(parts))
    with Loader(dataset, loader_workers=workers, pin_memory=pin_memory) as loader:
        yield from loader.load(parts, epoch)


class _Plan:
    """The batches of one iteration, as (epoch, indices): what a DataLoader calls a sampler."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, list[int]]] = []

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Batches:
    """Batches by (epoch, indices). Errors travel as values, to stay themselves.

    A DataLoader would raise them anew from their text alone, without path, hint or errno.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        self._dataset = dataset
        self._slots: deque[Tensor] = deque(maxlen=_SLOTS)

    def __getitem__(self, batch: tuple[int, list[int]]) -> tuple[Tensor, Tensor] | Exception:
        epoch, indices = batch
        try:
            images, labels = self._dataset.get_batch(torch.tensor(indices), epoch)
            return self._share(images), labels
        except _CARRIED as error:
            return error

    def _share(self, images: Tensor) -> Tensor:
        """Copy into the piece of shared memory that was used longest ago, or a new one.

        New memory for each batch costs more than the copy: the system has to clear it.
        """
        slot = self._slots.popleft() if len(self._slots) == _SLOTS else None
        if slot is None or slot.shape != images.shape or slot.stride() != images.stride():
            slot = torch.empty_like(images).share_memory_()
        self._slots.append(slot.copy_(images))
        return slot


def _as_it_is(batch: Any) -> Any:
    return batch
