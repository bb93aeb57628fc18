"""Features of a backbone that never moves, computed once for all epochs and all such trainings.

A study of heads on a frozen backbone computes the same features again in each epoch of each cell.
Here they are computed once, stored beside the jobs under a name made of all that they depend on,
and given to the head instead of the images. Which images are computed together depends on the batch
size alone: at any number of workers the same bits are stored.
"""

import contextlib
import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workloads import durable
from workloads.config.errors import ConfigError, Problem
from workloads.config.train import CacheFeaturesConfig
from workloads.data.bundle import ImageDataset
from workloads.data.loaders import Loader
from workloads.evaluation.classification import evaluation_batch_size
from workloads.models.gcp_net import GCPNet
from workloads.models.weights.digest import digest_weights
from workloads.training.run import Run
from workloads.worker import distributed

_FOLDER = "features"
_FACTS = "features.json"
_LABELS = "{split}-labels.npy"
_POLL_S = 0.5
_SPARE = 1.05
"""Room that must be free, as a multiple of what the features take."""


@dataclass(frozen=True)
class FeatureScale:
    """Stands where bytes become numbers: features are numbers already."""

    def __call__(self, features: Tensor, *, channels_last: bool = False) -> Tensor:
        """Return the features as float32."""
        features = features.float()
        if channels_last and features.ndim == 4:
            return features.contiguous(memory_format=torch.channels_last)
        return features


class FeatureDataset:
    """Stored features by the number of their image; an `ImageDataset` of features.

    Args:
        views: One array per view, (N, C, h, w) maps or (N, L, C) tokens.
        labels: (N,) int64.
    """

    def __init__(self, views: list[Any], labels: Any) -> None:
        self._views = views
        self._labels = torch.from_numpy(np.array(labels))

    def __len__(self) -> int:
        return len(self._labels)

    def get_batch(self, indices: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Return features and classes at `indices`; epoch e sees view e modulo their number."""
        view = self._views[epoch % len(self._views)]
        return torch.from_numpy(view[indices.numpy()]), self._labels[indices]


def use_cached_features(run: Run) -> None:
    """Have the run train on features where its config says so; weights must be in place.

    Every rank calls it. Training and validation then see features; what is saved is the whole
    network all the same.

    Raises:
        ConfigError: There is no room for them.
        DataError: An image cannot be read.
        OSError: The storage failed.
    """
    config, model = run.config.cache_features, run.model
    if config is None:
        return
    assert isinstance(model, GCPNet)
    started = time.monotonic()
    with distributed.patient_gather() as gather, _evaluating(model):
        train, val, found = _obtain(run, config, gather)
    loaders = Loader(train), Loader(val)
    run.train_loader.close()
    run.val_loader.close()
    run.train_loader, run.val_loader = loaders
    run.data = replace(run.data, train=train, val=val, scale=FeatureScale())  # type: ignore[arg-type]
    model.takes_features = True
    how = "found" if found else "computed"
    run.say(
        f"features of {len(train):,} training images in {config.views} view(s) and {len(val):,} "
        f"validation images {how} in {time.monotonic() - started:.1f} s; the backbone rests"
    )


def _obtain(
    run: Run, config: CacheFeaturesConfig, gather: Callable[[Any], list[Any]]
) -> tuple[FeatureDataset, FeatureDataset, bool]:
    """Return the features of training and validation, and whether they were there already."""
    shared = run.context.shared_cache
    if shared is None:
        arrays = _Arrays(None, config)
        _compute(run, arrays, gather, alone=True)
        return *arrays.datasets(), False
    folder = shared / _FOLDER / _key(run, config)
    with _only_builder(run, folder):
        found = bool(gather((folder / _FACTS).exists())[0])
        if not found:
            beside = folder.with_name(f"{folder.name}.part")
            if run.context.rank == 0:
                durable.remove_tree(beside)  # of a builder that was killed
                durable.make_folder(beside)
            gather(None)
            _compute(run, _Arrays(beside, config), gather, alone=False)
            if run.context.rank == 0:
                durable.move(beside, folder)
            gather(None)
    return *_Arrays(folder, config).open(), found


def _key(run: Run, config: CacheFeaturesConfig) -> str:
    """Return a name for all that the features depend on."""
    assert isinstance(run.model, GCPNet)
    told = run.config.model_dump(mode="json", include={"images", "augment", "compute", "seed"})
    facts = {
        "weights": digest_weights(run.model.features),
        "data": run.data.digest,
        "images": told["images"],
        # Without chance in the augmentation seeds share their features.
        "augment": told["augment"],
        "seed": told["seed"] if _is_random(told["augment"]) else None,
        "precision": told["compute"]["precision"],
        "batch": _batch_size(run),
        "cache": config.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _is_random(augment: dict[str, Any]) -> bool:
    crop = augment["crop"]["name"]
    others = ("flip", "color_jitter", "rand_augment", "erasing")
    return crop != "centre_crop" or any(augment[name] for name in others)


def _batch_size(run: Run) -> int:
    size = evaluation_batch_size(run.config.global_batch_size)
    most = run.config.compute.max_images_per_worker
    return size if most is None else min(size, most)


class _Arrays:
    """The arrays of one cache: files in a folder, or memory where there is none."""

    def __init__(self, folder: Path | None, config: CacheFeaturesConfig) -> None:
        self._folder = folder
        self._dtype = np.dtype(config.dtype)
        self._views = config.views
        self._made: dict[str, Any] = {}

    @property
    def names(self) -> list[tuple[str, str, int]]:
        """Name, split and view of each array of features."""
        train = [(f"train-{view}.npy", "train", view) for view in range(self._views)]
        return [*train, ("val-0.npy", "val", 0)]

    def bytes_for(self, counts: dict[str, int], shape: tuple[int, ...]) -> int:
        """Return the room that all features take."""
        images = sum(counts[split] for _, split, _ in self.names)
        return images * int(np.prod(shape)) * self._dtype.itemsize

    def make(self, name: str, shape: tuple[int, ...], dtype: Any = None, *, create: bool) -> Any:
        """Return an array to write to; the rank that creates it does so before the others open."""
        dtype = dtype or self._dtype
        if self._folder is None:
            self._made[name] = np.empty(shape, dtype)
        else:
            mode = "w+" if create else "r+"
            path = self._folder / name
            self._made[name] = np.lib.format.open_memmap(path, mode, dtype, shape)
        return self._made[name]

    def flush(self) -> None:
        """Bring what this rank wrote to the files."""
        for array in self._made.values():
            if isinstance(array, np.memmap):
                array.flush()

    def datasets(self) -> tuple[FeatureDataset, FeatureDataset]:
        """Return what was made as datasets."""
        of_train = [self._made[name] for name, split, _ in self.names if split == "train"]
        labels = {split: self._made[_LABELS.format(split=split)] for split in ("train", "val")}
        train = FeatureDataset(of_train, labels["train"])
        return train, FeatureDataset([self._made["val-0.npy"]], labels["val"])

    def open(self) -> tuple[FeatureDataset, FeatureDataset]:
        """Open the files that are there."""
        assert self._folder is not None
        labels = [_LABELS.format(split=split) for split in ("train", "val")]
        for name in [*(name for name, _, _ in self.names), *labels]:
            self._made[name] = np.load(self._folder / name, mmap_mode="r")
        return self.datasets()


def _compute(run: Run, arrays: _Arrays, gather: Callable[[Any], list[Any]], *, alone: bool) -> None:
    """Compute all features; ranks take turns by batches unless each works `alone`."""
    rank, world_size = (0, 1) if alone else (run.context.rank, run.context.world_size)
    datasets: dict[str, tuple[ImageDataset, Loader]] = {
        "train": (run.data.train, run.train_loader),
        "val": (run.data.val, run.val_loader),
    }
    counts = {split: len(dataset) for split, (dataset, _) in datasets.items()}
    shape = _shape(run)
    _refuse_without_room(run, arrays.bytes_for(counts, shape))
    size = _batch_size(run)
    for turn in (0, 1):
        if (rank == 0) == (turn == 0):
            made = {name: (n, *shape) for name, split, _ in arrays.names if (n := counts[split])}
            opened = {n: arrays.make(n, s, create=turn == 0) for n, s in made.items()}
            labels = {
                split: arrays.make(
                    _LABELS.format(split=split), (count,), np.int64, create=turn == 0
                )
                for split, count in counts.items()
            }
        gather(None)  # rank 0 makes the files, the others open them
    for name, split, view in arrays.names:
        whole = torch.arange(counts[split])
        parts = list(whole.split(size))[rank::world_size]
        batches = datasets[split][1].load(parts, view)
        for part, (images, classes) in zip(parts, batches, strict=True):
            opened[name][part.numpy()] = _features(run, images)
            labels[split][part.numpy()] = classes.numpy()
    arrays.flush()
    gather(None)
    folder = run.context.shared_cache
    if rank == 0 and not alone and folder is not None:
        facts = {"images": counts, "shape": list(shape)}
        durable.write_json(Path(opened["val-0.npy"].filename).parent / _FACTS, facts)


@torch.no_grad()
def _features(run: Run, images: Tensor) -> Any:
    assert isinstance(run.model, GCPNet)
    device = run.context.device
    pixels = run.data.scale(
        images.to(device, non_blocking=True), channels_last=run.config.compute.channels_last
    )
    with run.half_precision():
        return run.model.features(pixels).float().cpu().numpy()


def _shape(run: Run) -> tuple[int, ...]:
    """Return the shape of one image's features."""
    images, _ = run.data.val.get_batch(torch.arange(1), 0)
    return tuple(_features(run, images).shape[1:])


def _refuse_without_room(run: Run, needed: int) -> None:
    folder = run.context.shared_cache
    if folder is None:
        return
    free = shutil.disk_usage(folder.parent).free
    if free < needed * _SPARE:
        text = f"takes {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free"
        hint = "fewer views, dtype: float16, or no cache"
        raise ConfigError("train", [Problem("cache_features", text, hint)])


@contextlib.contextmanager
def _evaluating(model: GCPNet) -> Iterator[None]:
    """Features as the frozen backbone gives them: without dropout, by running statistics."""
    was_training = model.features.training
    model.features.eval()
    try:
        yield
    finally:
        model.features.train(was_training)


@contextlib.contextmanager
def _only_builder(run: Run, folder: Path) -> Iterator[None]:
    """Let one job at a time build a cache; others wait and then find it."""
    if run.context.rank != 0:
        yield
        return
    durable.make_folder(folder.parent)
    told = False
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    run.say("another training computes these features; waiting for it")
                told = True
                time.sleep(_POLL_S)
        yield
