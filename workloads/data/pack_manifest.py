"""What a folder of packed images says of itself: `manifest.json`. Needs no torch.

    manifest.json
    jpeg-256/train-00000.parquet      images as encoded files, with label, name, width and height
    jpeg-256/train-00000.index        where each image lies in it (Parquet, see `shard_files`)
    decoded-256/train-00000.bin       images as pixels, each at a multiple of 64 bytes
    decoded-256/train-00000.index

Every variant holds the same images in the same order: that of the image folder, class by class,
then by name. The manifest says nothing of when or by whom it was written, so the same images and
options give the same bytes.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from workloads.config.base import Config
from workloads.data.errors import DataError
from workloads.data.filesystem import read_file

if TYPE_CHECKING:
    from pyarrow import fs

MANIFEST = "manifest.json"
FORMAT = "gcpctl-packed"
VERSION = 1

Form = Literal["jpeg", "decoded"]
Split = Literal["train", "val"]
Count = Annotated[int, Field(ge=0)]


class Variant(Config):
    """One form of the images.

    Attributes:
        form: Encoded files, or pixels.
        size: Shorter side in pixels at most; None for the images as they were.
    """

    form: Form
    size: int | None = Field(ge=1)

    @property
    def name(self) -> str:
        """Return the variant's name, which is its folder's: `jpeg-256`, `decoded-original`."""
        return f"{self.form}-{self.size or 'original'}"

    @property
    def suffix(self) -> str:
        """Return the ending of its data files."""
        return ".parquet" if self.form == "jpeg" else ".bin"


def make_variants(
    forms: Iterable[str], sizes: Iterable[int], *, original: bool
) -> tuple[Variant, ...]:
    """Return every form in every size, in one order however they were asked for."""
    given = set(forms)
    by_size: list[int | None] = [*sorted(set(sizes), reverse=True)]
    all_sizes = [None, *by_size] if original else by_size
    every: tuple[Form, ...] = ("jpeg", "decoded")
    return tuple(
        Variant(form=form, size=size) for form in every if form in given for size in all_sizes
    )


class PackOptions(Config):
    """What decides the bytes of a pack, besides the images."""

    variants: tuple[Variant, ...] = Field(min_length=1)
    quality: int = Field(default=90, ge=1, le=100)
    """Of images that are resized and encoded again as JPEG."""
    shard_images: int = Field(default=1024, ge=1, le=1_000_000)
    max_pixels: int = Field(default=50_000_000, ge=1)
    """Larger images are refused as bad."""


class StoredFile(Config):
    """A file of a pack, by its path relative to the pack."""

    path: str
    bytes: Count
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError("leads out of the folder")
        return path


class ShardFiles(Config):
    """The two files of a shard in one variant."""

    data: StoredFile
    index: StoredFile


class Shard(Config):
    """A run of images of one split, in the folder's order, in every variant."""

    split: Split
    number: Count
    images: Count
    source: str
    """SHA-256 of its images' names, classes and sizes in bytes: what it was made of."""
    skipped: dict[str, str]
    """Images left out, and why."""
    files: dict[str, ShardFiles]
    """By the variant's name."""


class Source(Config):
    """What was packed."""

    path: str
    images: Count
    digest: str
    """SHA-256 over the names, classes and sizes in bytes of all images."""


class Manifest(Config):
    """Everything that is known of a pack."""

    format: Literal["gcpctl-packed"] = FORMAT
    version: int = VERSION
    finished: bool
    source: Source
    options: PackOptions
    classes: tuple[str, ...] = Field(min_length=1)
    shards: tuple[Shard, ...] = ()
    """Those of `train`, then those of `val`, by number; empty until the pack is finished."""

    @model_validator(mode="after")
    def _shards_have_every_variant(self) -> "Manifest":
        for shard in self.shards:
            stem = f"{shard.split}-{shard.number:05d}"
            if sorted(shard.files) != sorted(self.variant_names()):
                raise ValueError(f"shard {stem} is not in every variant")
        return self

    @model_validator(mode="after")
    def _nothing_is_twice_or_left_out(self) -> "Manifest":
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class is named twice")
        paths = [file.path for file in self.stored_files()]
        if len(set(paths)) < len(paths):
            raise ValueError("a file belongs to two shards")
        for split in ("train", "val"):
            numbers = [shard.number for shard in self.shards if shard.split == split]
            if numbers != list(range(len(numbers))):
                raise ValueError(f"the shards of {split} are not numbered from 0 on")
        images = sum(shard.images + len(shard.skipped) for shard in self.shards)
        if self.finished and images != self.source.images:
            raise ValueError(f"{images} images are in the shards, {self.source.images} were packed")
        return self

    def shards_of(self, split: Split) -> list[Shard]:
        """Return the shards of a split in order."""
        return [shard for shard in self.shards if shard.split == split]

    def variant_names(self) -> list[str]:
        """Return the names of the variants in the folder."""
        return [variant.name for variant in self.options.variants]

    def refuse_unusable(self, path: str) -> None:
        """Refuse a pack, called `path` in errors, that nothing can be trained on.

        Raises:
            DataError: It is still being written or was ended on the way, has one class only, or
                a split without images.
        """
        if not self.finished:
            raise DataError(
                f"the packing of {path} did not finish",
                "run the same `gcpctl data pack` again: it goes on where it was ended",
            )
        if len(self.classes) == 1:
            text = f"{path} holds one class, {self.classes[0]}"
            raise DataError(text, "it takes two to tell apart")
        for split in ("train", "val"):
            if not any(shard.images for shard in self.shards if shard.split == split):
                raise DataError(f"{path} holds no images of {split}", "pack the images again")

    def find_variant(self, name: str | None, path: str) -> Variant:
        """Return the variant called `name`, or the only one.

        Raises:
            DataError: If there is no such variant, or there are several and none was named.
        """
        names = self.variant_names()
        if name is None and len(names) > 1:
            raise DataError(
                f"{path} holds several variants: {', '.join(names)}",
                f"choose one: data.variant={names[0]}",
            )
        for variant in self.options.variants:
            if name in (None, variant.name):
                return variant
        raise DataError(f"{path} has no variant {name!r}", f"it holds {', '.join(names)}")

    def stored_files(self, variant: str | None = None) -> list[StoredFile]:
        """Return all files of one variant, or of all."""
        return [
            file
            for shard in self.shards
            for name, files in shard.files.items()
            if variant in (None, name)
            for file in (files.data, files.index)
        ]

    def digest(self, variant: str) -> str:
        """Return the SHA-256 of what identifies the images of a variant."""
        digest = hashlib.sha256("\0".join((variant, *self.classes)).encode())
        for file in self.stored_files(variant):
            digest.update(f"\n{file.path}\0{file.sha256}".encode())
        return digest.hexdigest()


def is_packed(filesystem: "fs.FileSystem", root: str) -> bool:
    """Whether a folder has a manifest."""
    return bool(filesystem.get_file_info(f"{root}/{MANIFEST}").is_file)


def read_manifest(filesystem: "fs.FileSystem", root: str, path: str) -> Manifest:
    """Read and check the manifest of the pack at `root`, called `path` in errors.

    Raises:
        DataError: If there is none, or it is not one of ours, or of another version.
    """
    if not is_packed(filesystem, root):
        raise DataError(
            f"{path} has no {MANIFEST}, so it is no folder of packed images",
            "gcpctl data pack SRC DST writes one; a folder of images is data.name=image_folder",
        )
    return parse_manifest(read_file(filesystem, f"{root}/{MANIFEST}", path), path)


def parse_manifest(text: bytes, path: str) -> Manifest:
    """Check the text of a manifest, called `path` in errors.

    Raises:
        DataError: If it is not one of ours, or of another version.
    """
    version = _version_of(text)
    if version not in (None, VERSION):
        raise DataError(
            f"{path} was packed in version {version} of the format; this is {VERSION}",
            "pack the images again into another folder, or use the gcpctl that packed them",
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        reason = str(first["msg"]).removeprefix("Value error, ")
        raise DataError(
            f"{path}/{MANIFEST} was not written by gcpctl, or is damaged",
            f"{where}: {reason}" if where else reason,
        ) from None


def _version_of(text: bytes) -> Any:
    """Return the version that a manifest says it is of; None for what is no manifest."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    ours = isinstance(content, dict) and content.get("format") == FORMAT
    return content.get("version") if ours else None


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return the text of a manifest's file."""
    return manifest.model_dump_json(indent=1).encode() + b"\n"
