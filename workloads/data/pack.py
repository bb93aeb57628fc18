"""A folder of images made into shards, or what an earlier run left of that gone on with.

Every shard is a run of the folder's images, written by one process in all variants at once. What
is written does not depend on how many processes there are, nor on how often they were ended: see
`pack_folder`. Needs no torch.
"""

import errno
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from workloads import durable
from workloads.data.errors import DataError
from workloads.data.filesystem import is_remote, local_path
from workloads.data.pack_folder import LOCK, OnBadImage, PackFolder, PackReport
from workloads.data.pack_manifest import PackOptions, Split
from workloads.data.pack_shard import (
    ShardResult,
    ShardTask,
    SourceImage,
    bytes_per_image,
    pack_shard,
)
from workloads.data.processes import in_processes
from workloads.data.scan import (
    SPLITS,
    FolderIndex,
    refuse_odd_name,
    scan_image_folder,
    size_of,
)

_SAMPLED = 24
_MARGIN = 1.05


@dataclass(frozen=True)
class PackStep:
    """How far a pack is; said a few times a second."""

    images_done: int
    images: int
    shards_done: int
    shards: int
    bad: int


def pack_images(
    source: str,
    target: str,
    options: PackOptions,
    *,
    on_bad_image: OnBadImage = "fail",
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[PackStep], None] = lambda step: None,
) -> PackReport:
    """Pack the image folder `source` into the local folder `target`, or go on with it.

    Args:
        source: A local path or a URI.
        on_bad_image: Refuse images that cannot be decoded, after all were looked at; or leave
            them out. May differ from that of an earlier run.
        overwrite: Remove what an earlier pack has left in `target`.

    Raises:
        DataError: If the source is not laid out as it must be, images are bad, `target` holds
            something else, or the disk has not enough room.
    """
    if is_remote(target):
        raise DataError(
            f"{target}: packs are written to a local folder",
            "pack to a local folder and copy it with the store's own tool; training reads it there",
        )
    folder = Path(local_path(target)).absolute()
    _refuse_inside(folder, source)
    index = scan_image_folder(source)
    splits = _with_sizes(index)
    with _locked(folder):
        pack = PackFolder(source, folder, options, index, splits)
        pack.prepare(overwrite=overwrite)
        tasks = pack.tasks(skip_bad=on_bad_image == "skip")
        _refuse_full_disk(folder, source, [task for task in tasks if task.known is None])
        with _explained_when_full(folder):
            results = _run(pack, tasks, workers, progress)
            return pack.finish(results, on_bad_image)


def _run(
    pack: PackFolder, tasks: list[ShardTask], workers: int, progress: Callable[[PackStep], None]
) -> list[ShardResult]:
    images = sum(len(task.images) for task in tasks)
    results: list[ShardResult] = []

    def say(done: int) -> None:
        bad = sum(len(result.bad) for result in results)
        progress(PackStep(done, images, len(results), len(tasks), bad))

    for result in in_processes(pack_shard, tasks, workers=workers, progress=say):
        if result.shard is not None:
            pack.record(result.shard)
        results.append(result)
    say(images)
    return results


def _with_sizes(index: FolderIndex) -> dict[Split, list[SourceImage]]:
    """Return the images of both splits with their sizes in bytes.

    Raises:
        DataError: A name cannot be stored as text.
    """
    samples: dict[Split, list[tuple[str, int]]] = {"train": index.train, "val": index.val}
    for name, _ in (*index.train, *index.val):
        refuse_odd_name(name)
    return {
        split: [(name, label, size_of(index.files, name)) for name, label in part]
        for split, part in samples.items()
    }


def _refuse_inside(folder: Path, source: str) -> None:
    """Refuse to write among the images, where a pack would be taken for a class."""
    if is_remote(source):
        return
    root = Path(os.path.realpath(local_path(source)))
    for split in SPLITS:
        if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(root / split)):
            raise DataError(f"{folder} lies among the images of {root}", "choose another folder")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder; a run that was killed does not."""
    lock = filelock.FileLock(folder / LOCK)
    try:
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder} is a file, not a folder")
        durable.make_folder(folder)
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise DataError(f"another gcpctl is packing into {folder}", "wait until it ends") from None
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write to {folder}: {reason}", "choose another folder") from None
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


@contextmanager
def _explained_when_full(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"the disk of {folder} is full", "free space and run it again: what is done is kept"
        ) from None


def _refuse_full_disk(folder: Path, source: str, tasks: list[ShardTask]) -> None:
    images = [image for task in tasks for image in task.images]
    if not images:
        return
    sampled = images[:: math.ceil(len(images) / _SAMPLED)]
    needed = len(images) * bytes_per_image(source, sampled, tasks[0].options) * _MARGIN
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"packing {len(images):,} images needs about {_room(needed)}, and {folder} has "
            f"{_room(free)} free",
            "free space, choose another folder, or fewer variants, or a smaller --size",
        )


def _room(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.2f} MB"
