"""Packed images as a source: any image by its number, from shards of this machine or of a store.

Shards of this machine are mapped into memory as they are needed: pixels are used where they lie,
an encoded file is handed to the decoder without a copy, and processes on one machine share the
pages. From a store, an image is one read of its own bytes.
"""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from workloads.data.decode import decode_image
from workloads.data.errors import DataError
from workloads.data.filesystem import explained, is_remote, local_path, open_filesystem
from workloads.data.pack_manifest import Shard, Split, Variant, read_manifest
from workloads.data.pack_verify import (
    REPAIR,
    damaged_error,
    find_damaged,
    find_wrong_sizes,
    read_indexes,
)
from workloads.data.peers import ALONE, Peers
from workloads.data.store import SourceImages

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs


class PackedNames(Sequence[str]):
    """Names of images, held by Arrow: a million of them are one piece of memory."""

    def __init__(self, names: "pa.ChunkedArray") -> None:
        self._names = names.combine_chunks()

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._names.take(list(range(len(self))[index])).to_pylist()
        return self._names[range(len(self))[index]].as_py()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names.to_pylist())


class PackedStore:
    """One split in one variant; an `ImageStore`.

    Args:
        path: The pack.
        shards: Of the split, in order.
        index: Where each image lies in its shard, as `read_indexes` returns it.
        max_pixels: Larger images are refused.

    Attributes:
        labels: Class of each image, (N,) int64.
        names: Path of each image relative to the folder that was packed.
    """

    def __init__(
        self,
        path: str,
        variant: Variant,
        shards: Sequence[Shard],
        index: "pa.Table",
        max_pixels: int,
    ) -> None:
        self._path = path
        self._is_pixels = variant.form == "decoded"
        self._max_pixels = max_pixels
        self._files = [shard.files[variant.name].data.path for shard in shards]
        self._sizes = [shard.files[variant.name].data.bytes for shard in shards]
        self._begins = np.cumsum([0, *(shard.images for shard in shards)])
        columns = {
            name: index.column(name).to_numpy() for name in index.column_names if name != "name"
        }
        self._offsets, self._lengths = columns["offset"], columns["length"]
        self._heights, self._widths = columns["height"], columns["width"]
        self.labels: Tensor = torch.from_numpy(columns["label"].astype(np.int64))
        self.names: Sequence[str] = PackedNames(index.column("name"))
        self._opened: _Opened | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, index: int) -> Tensor:
        """Return one image, uint8 (H, W, 3).

        Raises:
            DataError: With the image's name and its shard's, if it cannot be decoded.
            OSError: The storage failed.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self._begins, index, side="right")) - 1
        data = self._bytes(shard, int(self._offsets[index]), int(self._lengths[index]))
        if self._is_pixels:
            return data.view(int(self._heights[index]), int(self._widths[index]), 3)
        name = f"{self._path}/{self._files[shard]}: {self.names[index]}"
        try:
            pixels = decode_image(memoryview(data.numpy()), name=name, max_pixels=self._max_pixels)
        except DataError as error:
            raise DataError(error.message, REPAIR) from None
        return torch.from_numpy(pixels)

    def _bytes(self, shard: int, offset: int, length: int) -> Tensor:
        # A store's file system does not survive a fork, so each process opens its own.
        if self._opened is None or self._opened.process != os.getpid():
            self._opened = _Opened(self._path)
        return self._opened.read(self._files[shard], self._sizes[shard], offset, length)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


class _Opened:
    """The shards that this process has opened."""

    def __init__(self, path: str) -> None:
        self.process = os.getpid()
        self._is_remote = is_remote(path)
        self._filesystem: fs.FileSystem | None = None
        self._root = os.path.abspath(local_path(path))
        if self._is_remote:
            self._filesystem, self._root = open_filesystem(path)
        self._mapped: dict[str, Tensor] = {}
        self._files: dict[str, Any] = {}

    def read(self, file: str, size: int, offset: int, length: int) -> Tensor:
        """Return bytes (length,) of a shard; from this machine, where they lie in its memory."""
        if not self._is_remote:
            if file not in self._mapped:
                # Unlike Python's mmap, this holds no file open: there may be thousands.
                self._mapped[file] = torch.from_file(
                    f"{self._root}/{file}", shared=False, size=size, dtype=torch.uint8
                )
            return self._mapped[file][offset : offset + length]
        assert self._filesystem is not None
        with explained(f"{self._root}/{file}"):
            if file not in self._files:
                self._files[file] = self._filesystem.open_input_file(f"{self._root}/{file}")
            data = bytearray(self._files[file].read_at(length, offset))
        return torch.frombuffer(data, dtype=torch.uint8)


def build_packed(
    *,
    path: str,
    variant: str | None = None,
    loader_workers: int = 0,
    verify: bool = True,
    peers: Peers = ALONE,
) -> SourceImages:
    """Read the manifest and the indexes of a pack, and hand over both splits.

    `loader_workers` is for the loaders. The sizes of all files are compared in any case; with
    `verify` each of the `peers` compares the checksums of its share.

    Raises:
        DataError: If there is no finished pack, no such variant, or a shard is damaged.
        OSError: The storage failed.
    """
    error, manifest, chosen, found = None, None, None, {}
    try:
        filesystem, root = open_filesystem(path)
        manifest = read_manifest(filesystem, root, path)
        manifest.refuse_unusable(path)
        chosen = manifest.find_variant(variant, path)
        files = manifest.stored_files(chosen.name)
        found = find_wrong_sizes(filesystem, root, files)
        if verify and not found:
            found = find_damaged(filesystem, root, files[peers.rank :: peers.world_size])
    except Exception as reason:  # told after the others have heard what there is to hear
        error = reason
    together = peers.gather(found)
    if error is not None:
        raise error
    assert manifest is not None
    assert chosen is not None
    damaged = {file: why for part in together for file, why in part.items()}
    if damaged:
        raise damaged_error(path, damaged)

    def store(split: Split) -> PackedStore:
        shards = manifest.shards_of(split)
        index = read_indexes(filesystem, root, chosen, shards, len(manifest.classes))
        return PackedStore(path, chosen, shards, index, manifest.options.max_pixels)

    return SourceImages(
        train=store("train"),
        val=store("val"),
        classes=list(manifest.classes),
        in_channels=3,
        digest=manifest.digest(chosen.name),
        skipped=[name for shard in manifest.shards for name in shard.skipped],
    )
