"""The folder that a pack is written to: what an earlier run has left there, and what is missing.

Every shard that is on the disk is recorded in `.packing`; the manifest names shards only when all
are there. So a run that was ended anywhere is begun again with the same command. Needs no torch.
"""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from workloads import durable
from workloads.data.errors import DataError, printable
from workloads.data.filesystem import is_remote, local_path
from workloads.data.pack_manifest import (
    MANIFEST,
    Manifest,
    PackOptions,
    Shard,
    Source,
    Split,
    manifest_bytes,
    parse_manifest,
)
from workloads.data.pack_shard import ShardResult, ShardTask, SourceImage, source_digest
from workloads.data.scan import FolderIndex

LOCK = ".packing.lock"
_RECORDS = ".packing"
_LEFT_BY_A_KILL = re.compile(r"\..*\.\d+\.tmp")

OnBadImage = Literal["fail", "skip"]


@dataclass(frozen=True)
class PackReport:
    """What a run did.

    Attributes:
        manifest: The finished pack's.
        shards_written: Shards of this run; the others had been there.
    """

    manifest: Manifest
    shards_written: int


class PackFolder:
    """One pack in one folder, from what is there to what shall be."""

    def __init__(
        self,
        source: str,
        folder: Path,
        options: PackOptions,
        index: FolderIndex,
        splits: dict[Split, list[SourceImage]],
    ) -> None:
        every = [image for images in splits.values() for image in images]
        where = source if is_remote(source) else os.path.abspath(local_path(source))
        self._folder = folder
        self._index = index
        self._splits = splits
        self._manifest = Manifest(
            finished=False,
            source=Source(path=where, images=len(every), digest=source_digest(every)),
            options=options,
            classes=tuple(index.classes),
        )
        self._known: dict[tuple[str, int], Shard] = {}

    def prepare(self, *, overwrite: bool) -> None:
        """Look at what is in the folder, and leave there what says how it is being packed."""
        earlier = self._earlier()
        if earlier is not None and overwrite:
            self._remove(earlier)
            earlier = None
        if earlier is not None:
            self._refuse_other(earlier)
            self._known = {(shard.split, shard.number): shard for shard in earlier.shards}
        self._known |= {(shard.split, shard.number): shard for shard in self._records()}
        for path in self._folder.rglob(".*.tmp"):
            if _LEFT_BY_A_KILL.fullmatch(path.name):
                path.unlink()
        # The manifest first: by it the next run knows the folder as a pack.
        if earlier is None or not earlier.finished:
            durable.write_file(self._folder / MANIFEST, manifest_bytes(self._manifest))
        for variant in self._manifest.variant_names():
            if (self._folder / variant).is_file():
                raise DataError(f"{self._folder / variant} is a file", "remove it")
            durable.make_folder(self._folder / variant)
        durable.make_folder(self._folder / _RECORDS)

    def _earlier(self) -> Manifest | None:
        path = self._folder / MANIFEST
        if path.is_file():
            return parse_manifest(path.read_bytes(), str(self._folder))
        strangers = [
            entry.name
            for entry in self._folder.iterdir()
            if entry.name != LOCK and not _LEFT_BY_A_KILL.fullmatch(entry.name)
        ]
        if strangers:
            raise DataError(
                f"{self._folder} is not empty, and holds no pack",
                f"choose another folder; it holds {', '.join(sorted(strangers)[:3])}",
            )
        return None

    def _remove(self, earlier: Manifest) -> None:
        for variant in earlier.variant_names():
            durable.remove_tree(self._folder / variant)
        durable.remove_tree(self._folder / _RECORDS)
        (self._folder / MANIFEST).unlink()

    def _refuse_other(self, earlier: Manifest) -> None:
        """Refuse to go on with what was begun otherwise."""
        ours = self._manifest
        if earlier.options != ours.options:
            begun, wanted = _options_text(earlier.options), _options_text(ours.options)
            raise DataError(
                f"{self._folder} was packed with other options: {begun}; now: {wanted}",
                "use the same options, another folder, or --overwrite to begin anew",
            )
        same = earlier.source.digest == ours.source.digest and earlier.classes == ours.classes
        if not same and earlier.source.path != ours.source.path:
            raise DataError(
                f"{self._folder} holds the images of {earlier.source.path}, not those of "
                f"{ours.source.path}",
                "choose another folder, or --overwrite to begin anew",
            )
        if not same and earlier.finished:
            raise DataError(
                f"the images in {ours.source.path} have changed since they were packed",
                "pack them into another folder, or use --overwrite to begin anew",
            )

    def _records(self) -> Iterator[Shard]:
        for path in sorted((self._folder / _RECORDS).glob("*.json")):
            try:
                yield Shard.model_validate_json(path.read_bytes())
            except ValidationError:
                continue  # then the shard is written again

    def tasks(self, *, skip_bad: bool) -> list[ShardTask]:
        """Return one task for each shard, with what an earlier run knows of it."""
        size = self._manifest.options.shard_images
        tasks = []
        for split, images in self._splits.items():
            for number in range(math.ceil(len(images) / size)):
                part = tuple(images[number * size : (number + 1) * size])
                known = self._known.get((split, number))
                tasks.append(
                    ShardTask(
                        source=self._manifest.source.path,
                        target=self._folder,
                        split=split,
                        number=number,
                        images=part,
                        options=self._manifest.options,
                        skip_bad=skip_bad,
                        known=known if known and known.source == source_digest(part) else None,
                    )
                )
        return tasks

    def record(self, shard: Shard) -> None:
        """Note that a shard is on the disk."""
        if self._known.get((shard.split, shard.number)) == shard:
            return
        path = self._folder / _RECORDS / f"{shard.split}-{shard.number:05d}.json"
        durable.write_file(path, shard.model_dump_json().encode() + b"\n")

    def finish(self, results: list[ShardResult], on_bad_image: OnBadImage) -> PackReport:
        """Write the manifest, and remove what only an unfinished pack needs.

        Raises:
            DataError: If images are bad; what is sound stays recorded.
        """
        bad = {name: why for result in results for name, why in result.bad.items()}
        if bad and on_bad_image == "fail":
            raise _bad_images_error(bad, self._manifest.source.images, self._manifest.source.path)
        if bad:
            self._index.without(set(bad))  # refuses a class that has no image left
        shards = [result.shard for result in results if result.shard is not None]
        shards.sort(key=lambda shard: (shard.split, shard.number))
        done = self._manifest.model_copy(update={"finished": True, "shards": tuple(shards)})
        durable.write_file(self._folder / MANIFEST, manifest_bytes(done))
        self._remove_leftovers(done)
        return PackReport(done, sum(not result.kept for result in results))

    def _remove_leftovers(self, done: Manifest) -> None:
        wanted = {file.path for file in done.stored_files()}
        for variant in done.variant_names():
            for path in (self._folder / variant).iterdir():
                if f"{variant}/{path.name}" not in wanted:
                    path.unlink()
        durable.remove_tree(self._folder / _RECORDS)


def _bad_images_error(bad: dict[str, str], images: int, source: str) -> DataError:
    shown = "".join(f"\n  {printable(name)}: {why}" for name, why in list(bad.items())[:20])
    more = f"\n  and {len(bad) - 20} more" if len(bad) > 20 else ""
    return DataError(
        f"{len(bad)} of {images:,} images in {source} cannot be used:{shown}{more}",
        "mend or remove them, or leave them out with --on-bad-image skip, and run it again",
    )


def _options_text(options: PackOptions) -> str:
    variants = " ".join(variant.name for variant in options.variants)
    return (
        f"{variants}, quality {options.quality}, {options.shard_images} images in a shard, at most "
        f"{options.max_pixels} pixels"
    )
