"""The files of a shard: written once, then read at any place without looking at the rest.

Encoded images lie in Parquet, which anything can read, but which has to decode a whole row group
to give one image: measured at 24 KB an image, 0.2 to 1.0 ms for row groups of 16 to 256 images,
as much as decoding the JPEG itself. So the images' column is written plain and uncompressed, where
a value is its length and then its bytes, and an index beside the file says where each begins:
4 microseconds. Places are not computed but found in the finished file and checked there, so
nothing hangs on how Parquet is laid out by the version of pyarrow that wrote it.

Pixels lie in a `.bin` file, row by row as uint8 (H, W, 3), each image at a multiple of 64 bytes,
and are used where they lie in mapped memory. The index is the same. Needs no torch.
"""

import contextlib
import hashlib
import mmap
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from workloads import durable
from workloads.data.decode import Pixels
from workloads.data.errors import DataError
from workloads.data.pack_manifest import ShardFiles, StoredFile, Variant

if TYPE_CHECKING:
    import pyarrow as pa

ALIGNMENT = 64
_ROWS_PER_GROUP = 256
_BYTES_PER_GROUP = 64 << 20
_MOST_BETWEEN_VALUES = 4096
"""Page headers stand between values; they are a few dozen bytes long."""
_HASH_CHUNK = 1 << 20


@dataclass
class _Index:
    """Where each image of a shard lies, and what it is, in columns."""

    offset: list[int] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    height: list[int] = field(default_factory=list)
    width: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    name: list[str] = field(default_factory=list)

    def add(self, shape: tuple[int, ...], label: int, name: str, length: int) -> None:
        self.length.append(length)
        self.height.append(shape[0])
        self.width.append(shape[1])
        self.label.append(label)
        self.name.append(name)


class ShardWriter:
    """Writes one shard of one variant; nothing has its final name before all is on the disk.

    Used as a context: what was begun is removed if it is left by an error.

    Args:
        folder: The pack.
        variant: The form of its images.
        stem: Name of the files without their endings, such as `train-00000`.
    """

    def __init__(self, folder: Path, variant: Variant, stem: str) -> None:
        self._folder = folder
        self._variant = variant
        self._data = f"{variant.name}/{stem}{variant.suffix}"
        self._index_path = f"{variant.name}/{stem}.index"
        self._beside = _beside(folder / self._data)
        self._handle: BinaryIO = self._beside.open("wb")
        self._index = _Index()
        self._body = _ParquetBody(self._handle) if variant.form == "jpeg" else None
        self._end = 0

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *error: object) -> None:
        if self._body is not None:
            self._body.abandon()
        with contextlib.suppress(OSError):  # a full disk says so once more
            self._handle.close()
        self._beside.unlink(missing_ok=True)

    def add_encoded(self, data: bytes, shape: tuple[int, ...], label: int, name: str) -> None:
        """Add an image as an encoded file; `shape` is (H, W, C) of its pixels."""
        assert self._body is not None
        self._index.add(shape, label, name, len(data))
        self._body.add(data, shape, label, name)

    def add_pixels(self, pixels: Pixels, label: int, name: str) -> None:
        """Add an image as pixels (H, W, 3)."""
        padding = -self._end % ALIGNMENT
        self._index.offset.append(self._end + padding)
        self._index.add(pixels.shape, label, name, pixels.nbytes)
        durable.write(self._handle, bytes(padding))
        durable.write(self._handle, memoryview(np.ascontiguousarray(pixels).reshape(-1)))
        self._end += padding + pixels.nbytes

    def finish(self) -> ShardFiles:
        """Bring both files to the disk and return what they are."""
        if self._body is not None:
            self._body.close()
        durable.sync(self._handle)
        self._handle.close()
        if self._body is not None:
            self._index.offset = self._body.find_offsets(self._beside)
        data = _stored(self._beside, self._data)
        durable.move(self._beside, self._folder / self._data)
        index = self._folder / self._index_path
        durable.write_file(index, _index_bytes(self._index))  # brings the folder's entries, too
        return ShardFiles(data=data, index=_stored(index, self._index_path))


class _ParquetBody:
    """Images as rows of a Parquet file, and where their bytes lie in it."""

    def __init__(self, handle: BinaryIO) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = pa.schema(
            [
                pa.field("image", pa.binary(), nullable=False),
                pa.field("label", pa.int32(), nullable=False),
                pa.field("name", pa.string(), nullable=False),
                pa.field("width", pa.int32(), nullable=False),
                pa.field("height", pa.int32(), nullable=False),
            ]
        )
        self._writer = pq.ParquetWriter(
            pa.PythonFile(handle, mode="w"),
            self._schema,
            compression="NONE",
            use_dictionary=False,
            write_statistics=["label"],
            data_page_version="1.0",
        )
        self._rows: list[tuple[bytes, int, str, int, int]] = []
        self._held = 0
        self._marks: list[list[tuple[int, int]]] = []
        """Length and CRC-32 of each image, by row group."""

    def add(self, data: bytes, shape: tuple[int, ...], label: int, name: str) -> None:
        self._rows.append((data, label, name, shape[1], shape[0]))
        self._held += len(data)
        if len(self._rows) >= _ROWS_PER_GROUP or self._held >= _BYTES_PER_GROUP:
            self._write_group()

    def _write_group(self) -> None:
        import pyarrow as pa

        columns = [
            pa.array([row[i] for row in self._rows], column.type)
            for i, column in enumerate(self._schema)
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._marks.append([(len(row[0]), zlib.crc32(row[0])) for row in self._rows])
        self._rows, self._held = [], 0

    def close(self) -> None:
        if self._rows:
            self._write_group()
        self._writer.close()

    def abandon(self) -> None:
        """Let go of the file, finished or not, whatever its disk says."""
        with contextlib.suppress(OSError, ValueError):
            self._writer.close()

    def find_offsets(self, path: Path) -> list[int]:
        """Return where each image's bytes begin in the finished file, every one compared."""
        import pyarrow.parquet as pq

        found: list[int] = []
        layout = pq.read_metadata(path)
        with path.open("rb") as handle, _mapped(handle) as whole:
            for group, marks in enumerate(self._marks):
                place = layout.row_group(group).column(0).data_page_offset
                for length, checksum in marks:
                    place = _find_value(whole, place, length, checksum)
                    found.append(place)
                    place += length
        return found


def _find_value(whole: mmap.mmap, place: int, length: int, checksum: int) -> int:
    """Return where a value of Parquet's plain encoding begins, at or soon after `place`."""
    prefix = length.to_bytes(4, "little")
    last = place + _MOST_BETWEEN_VALUES
    while (at := whole.find(prefix, place, last)) >= 0:
        begin = at + len(prefix)
        with memoryview(whole) as view, view[begin : begin + length] as value:
            if zlib.crc32(value) == checksum:
                return begin
        place = at + 1
    raise RuntimeError("a Parquet file was written in a layout that this program does not know")


def _index_bytes(index: _Index) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"offset": pa.int64(), "length": pa.int64(), "name": pa.string()}
    columns = {
        name: pa.array(values, types.get(name, pa.int32())) for name, values in vars(index).items()
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return bytes(sink.getvalue())


def read_index(data: bytes, name: str) -> "pa.Table":
    """Return the index of a shard from its file's bytes, called `name` in errors.

    Returns:
        Columns offset, length (int64), height, width, label (int32) and name (string), one row
        for each image.

    Raises:
        DataError: If it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name}: {str(error).partition(chr(10))[0]}") from None
    if table.column_names != list(vars(_Index())):
        raise DataError(f"{name}: is no index of a shard")
    return table


def _stored(path: Path, name: str) -> StoredFile:
    return StoredFile(path=name, bytes=path.stat().st_size, sha256=file_sha256(path))


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a local file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _mapped(handle: BinaryIO) -> mmap.mmap:
    return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
