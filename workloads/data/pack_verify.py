"""Whether a pack is whole, and where in it each image lies. Needs no torch."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from workloads.data.errors import DataError
from workloads.data.filesystem import explained, list_files, read_file
from workloads.data.pack_manifest import MANIFEST, Shard, StoredFile, Variant
from workloads.data.processes import Tick, usable_cpus
from workloads.data.shard_files import ALIGNMENT, read_index

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

REPAIR = (
    "run the same `gcpctl data pack SRC DST ...` again: it writes damaged shards anew and keeps "
    "the others; or copy the folder again"
)
_CHUNK = 1 << 20
_THREADS_FOR_INDEXES = 16
"""Reading many small files from a store is a matter of waiting for answers."""


def find_wrong_sizes(
    filesystem: "fs.FileSystem", root: str, files: Sequence[StoredFile]
) -> dict[str, str]:
    """Return which files are missing or of another length than they were written with, and how."""
    folders = sorted({file.path.rpartition("/")[0] for file in files})
    sizes = {
        info.path[len(root.rstrip("/")) + 1 :]: info.size
        for folder in folders
        for info in list_files(filesystem, f"{root}/{folder}")
    }
    wrong = {}
    for file in files:
        size = sizes.get(file.path)
        if size is None:
            wrong[file.path] = "is missing"
        elif size != file.bytes:
            wrong[file.path] = f"has {size:,} bytes and had {file.bytes:,}"
    return wrong


def find_damaged(
    filesystem: "fs.FileSystem",
    root: str,
    files: Sequence[StoredFile],
    tick: Tick = lambda count=1: None,
) -> dict[str, str]:
    """Compare files with their checksums; return those that differ, and how.

    Args:
        tick: Told of each file that is compared.
    """

    def look(file: StoredFile) -> str | None:
        digest = hashlib.sha256()
        path = f"{root}/{file.path}"
        with explained(path), filesystem.open_input_stream(path) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        tick()
        return None if digest.hexdigest() == file.sha256 else "differs from its checksum"

    # Hashing and reading leave Python's lock, so threads are enough.
    with ThreadPoolExecutor(min(8, usable_cpus())) as pool:
        found = zip(files, pool.map(look, files), strict=True)
        return {file.path: why for file, why in found if why is not None}


def damaged_error(path: str, damaged: Mapping[str, str]) -> DataError:
    """Return the error that names damaged files and says what to do."""
    shown = "".join(f"\n  {file}: {why}" for file, why in list(damaged.items())[:5])
    more = f"\n  and {len(damaged) - 5} more" if len(damaged) > 5 else ""
    return DataError(f"{len(damaged)} file(s) of {path} are damaged:{shown}{more}", REPAIR)


def read_indexes(
    filesystem: "fs.FileSystem",
    root: str,
    variant: Variant,
    shards: Sequence[Shard],
    num_classes: int,
) -> "pa.Table":
    """Return where each image of a split lies; the columns of `read_index`, one row per image.

    Raises:
        DataError: If an index cannot be read or does not fit its shard.
    """
    import pyarrow as pa

    def read(shard: Shard) -> "pa.Table":
        files = shard.files[variant.name]
        path = f"{root}/{files.index.path}"
        table = read_index(read_file(filesystem, path), path)
        if not _fits(table, shard.images, files.data.bytes, variant):
            raise DataError(f"{path} does not belong to its shard", REPAIR)
        if not _are_below(num_classes, table):
            raise DataError(f"{path} has images of classes that {root}/{MANIFEST} lacks", REPAIR)
        return table

    with ThreadPoolExecutor(_THREADS_FOR_INDEXES) as pool:
        return pa.concat_tables(pool.map(read, shards))


def _fits(table: "pa.Table", images: int, size: int, variant: Variant) -> bool:
    """Whether an index has the shard's images, all of them inside its file."""
    if table.num_rows != images:
        return False
    columns = {name: table.column(name).to_numpy() for name in table.column_names[:4]}
    offset, length = columns["offset"], columns["length"]
    inside = (offset >= 0) & (length >= 0) & (offset + length <= size)
    if variant.form == "decoded":
        inside &= (offset % ALIGNMENT == 0) & (length == 3 * columns["height"] * columns["width"])
    return bool(inside.all())


def _are_below(num_classes: int, table: "pa.Table") -> bool:
    """Whether the labels of an index are numbers of classes."""
    labels = table.column("label").to_numpy()
    return bool(((labels >= 0) & (labels < num_classes)).all())
