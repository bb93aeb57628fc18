"""One shard: its images read, resized once, encoded again where that is needed, and written.

The shorter side is brought to `size` with Pillow's antialiased bilinear filter, the longer one to
`size` times the ratio, rounded down, as torchvision's `Resize` does for evaluation. An image that
is not larger is not touched: its file goes in as it is. So a folder of small images and its shards
decode to the same pixels. Needs no torch.
"""

import hashlib
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg

from workloads.data.decode import Pixels, decode_image
from workloads.data.errors import DataError, printable
from workloads.data.filesystem import open_filesystem, read_file
from workloads.data.pack_manifest import PackOptions, Shard, Split, Variant
from workloads.data.processes import Tick
from workloads.data.shard_files import ShardWriter, file_sha256

if TYPE_CHECKING:
    from pyarrow import fs

SourceImage = tuple[str, int, int]
"""Path relative to the source, number of the class, size in bytes."""


@dataclass(frozen=True)
class ShardTask:
    """What one process needs to write one shard.

    Attributes:
        source: The image folder; a local path or a URI.
        target: The pack.
        images: The shard's images, in order.
        skip_bad: Leave bad images out instead of refusing the shard.
        known: The shard as an earlier run wrote it; taken if its files are still as they were.
    """

    source: str
    target: Path
    split: Split
    number: int
    images: tuple[SourceImage, ...]
    options: PackOptions
    skip_bad: bool
    known: Shard | None = None

    @property
    def stem(self) -> str:
        """Return the name of the shard's files without their endings."""
        return f"{self.split}-{self.number:05d}"


@dataclass(frozen=True)
class ShardResult:
    """What became of a task.

    Attributes:
        shard: None if bad images were found and not to be skipped.
        bad: Why bad images cannot be used, by name.
        kept: An earlier run had written the shard, and it is sound.
    """

    shard: Shard | None
    bad: dict[str, str]
    kept: bool = False


def pack_shard(task: ShardTask, tick: Tick) -> ShardResult:
    """Write a shard in every variant, or find it written.

    Raises:
        OSError: The storage failed, or the disk is full.
    """
    known = task.known
    usable = known is not None and (task.skip_bad or not known.skipped)
    if known is not None and usable and is_sound(known, task.target):
        tick(len(task.images))
        return ShardResult(known, known.skipped, kept=True)
    bad: dict[str, str] = {}
    with ExitStack() as stack:
        writers = [
            (variant, stack.enter_context(ShardWriter(task.target, variant, task.stem)))
            for variant in task.options.variants
        ]
        for name, label, _ in task.images:
            try:
                _add(task.source, name, label, task.options, writers)
            except DataError as error:
                bad[name] = error.message.removeprefix(f"{_path(task.source, name)}: ")
            tick()
        if bad and not task.skip_bad:
            return ShardResult(None, bad)
        files = {variant.name: writer.finish() for variant, writer in writers}
    shard = Shard(
        split=task.split,
        number=task.number,
        images=len(task.images) - len(bad),
        source=source_digest(task.images),
        skipped=bad,
        files=files,
    )
    return ShardResult(shard, bad)


def is_sound(shard: Shard, folder: Path) -> bool:
    """Whether all files of a shard are there and have their checksums."""
    stored = [file for files in shard.files.values() for file in (files.data, files.index)]
    for file in stored:
        path = folder / file.path
        if not path.is_file() or path.stat().st_size != file.bytes:
            return False
    return all(file_sha256(folder / file.path) == file.sha256 for file in stored)


def source_digest(images: Iterable[SourceImage]) -> str:
    """Return the SHA-256 of images' names, classes and sizes in bytes."""
    digest = hashlib.sha256()
    for name, label, size in images:
        digest.update(f"{name}\0{label}\0{size}\n".encode())
    return digest.hexdigest()


def bytes_per_image(source: str, images: Iterable[SourceImage], options: PackOptions) -> float:
    """Return the bytes that one image takes in all variants together, on average over `images`.

    Bad images count for nothing; the result is 0 if all are bad.
    """
    sizes = []
    for name, _, _ in images:
        try:
            data, pixels = _read(source, name, options.max_pixels)
        except DataError:
            continue
        made = _Forms(data, pixels, options.quality)
        sizes.append(
            sum(
                len(made.encoded(variant))
                if variant.form == "jpeg"
                else made.pixels(variant).nbytes
                for variant in options.variants
            )
        )
    return sum(sizes) / len(sizes) if sizes else 0.0


@cache
def _opened(source: str) -> "tuple[fs.FileSystem, str]":
    return open_filesystem(source)


def _read(source: str, name: str, max_pixels: int) -> tuple[bytes, Pixels]:
    filesystem, root = _opened(source)
    path = _path(source, name)
    data = read_file(filesystem, f"{root}/{name}", path)
    return data, decode_image(data, name=path, max_pixels=max_pixels)


def _path(source: str, name: str) -> str:
    return printable(f"{source.rstrip('/')}/{name}")


def _add(
    source: str,
    name: str,
    label: int,
    options: PackOptions,
    writers: list[tuple[Variant, ShardWriter]],
) -> None:
    data, pixels = _read(source, name, options.max_pixels)
    made = _Forms(data, pixels, options.quality)
    for variant, writer in writers:
        if variant.form == "jpeg":
            writer.add_encoded(made.encoded(variant), made.pixels(variant).shape, label, name)
        else:
            writer.add_pixels(made.pixels(variant), label, name)


class _Forms:
    """One image in every variant; resized once for each size."""

    def __init__(self, data: bytes, pixels: Pixels, quality: int) -> None:
        self._data = data
        self._pixels = pixels
        self._quality = quality
        self._resized: dict[int, Pixels] = {}

    def pixels(self, variant: Variant) -> Pixels:
        """Return uint8 (H, W, 3) of the variant's size."""
        if self._is_small(variant):
            return self._pixels
        size = variant.size
        assert size is not None
        if size not in self._resized:
            self._resized[size] = resize_shorter_side(self._pixels, size)
        return self._resized[size]

    def encoded(self, variant: Variant) -> bytes:
        """Return an encoded file of the variant's size; the image's own where it fits."""
        if self._is_small(variant):
            return self._data
        return encode_jpeg(self.pixels(variant), self._quality)

    def _is_small(self, variant: Variant) -> bool:
        return variant.size is None or min(self._pixels.shape[:2]) <= variant.size


def resize_shorter_side(pixels: Pixels, size: int) -> Pixels:
    """Return uint8 (H, W, 3) with a shorter side of `size`, antialiased."""
    from PIL import Image

    height, width = pixels.shape[:2]
    shorter = min(height, width)
    new = (size * width // shorter, size * height // shorter)
    image = Image.fromarray(pixels).resize(new, Image.Resampling.BILINEAR)
    return np.asarray(image)


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """Return uint8 (H, W, 3) as JPEG; with one channel if all three are equal.

    Colour has half the resolution (4:2:0), as in most photographs.
    """
    gray = pixels[..., :1]
    is_gray = bool((pixels == gray).all())
    return bytes(
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(gray if is_gray else pixels),
            quality=quality,
            colorspace="GRAY" if is_gray else "RGB",
            colorsubsampling="Gray" if is_gray else "420",
            fastdct=False,
        )
    )
