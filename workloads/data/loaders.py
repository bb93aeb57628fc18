"""Which images form which batch on which rank: pure functions of (seed, epoch, step, rank).

Nothing here keeps state between epochs and nothing draws from torch's global generator, so a
resumed training sees the batches that an uninterrupted one would have seen, and loader processes
change the speed only.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from workloads.data.bundle import ImageDataset
from workloads.data.errors import DataError

_CARRIED = (DataError, OSError, MemoryError)
"""Errors whose kind decides whether a retry makes sense."""


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


def train_batches(
    dataset: ImageDataset,
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
    dataset: ImageDataset,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    loader_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield this rank's (indices, images, labels): every image once over all ranks.

    Rank r takes the images r, r + world_size, ...; nothing is padded, so ranks may hold one image
    more or less than others and a rank may hold none.
    """
    parts = list(torch.arange(len(dataset))[rank::world_size].split(batch_size))
    parts = [part for part in parts if len(part)]
    loaded = _load(dataset, parts, 0, loader_workers, pin_memory)
    for part, (images, labels) in zip(parts, loaded, strict=True):
        yield part, images, labels


def _load(
    dataset: ImageDataset,
    parts: list[Tensor],
    epoch: int,
    loader_workers: int,
    pin_memory: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    if loader_workers == 0 or not parts:
        for part in parts:
            yield dataset.get_batch(part, epoch)
        return
    loader = DataLoader(
        _Batches(dataset, [part.tolist() for part in parts], epoch),  # type: ignore[arg-type]
        batch_size=None,
        shuffle=False,
        num_workers=min(loader_workers, len(parts)),
        collate_fn=_as_it_is,
        # From pinned memory a copy to a GPU goes on beside the computation.
        pin_memory=pin_memory,
        generator=torch.Generator(),  # its base seed would come from the global generator
    )
    for batch in loader:
        if isinstance(batch, _CARRIED):
            raise batch
        yield batch


class _Batches:
    """Batches by number, for loader processes. Errors travel as values, to stay themselves.

    A DataLoader would raise them anew from their text alone, without path, hint or errno.
    """

    def __init__(self, dataset: ImageDataset, parts: list[list[int]], epoch: int) -> None:
        self._dataset, self._parts, self._epoch = dataset, parts, epoch

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor] | Exception:
        try:
            return self._dataset.get_batch(torch.tensor(self._parts[number]), self._epoch)
        except _CARRIED as error:
            return error


def _as_it_is(batch: Any) -> Any:
    return batch
