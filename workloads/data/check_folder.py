"""Every image of a folder looked at: what it is, and whether it can be used. Needs no torch."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from workloads.data.check_report import (
    CheckReport,
    Finding,
    class_findings,
    duplicate_findings,
    finding_about,
    in_order_of_level,
    size_range_of,
)
from workloads.data.errors import DataError, printable
from workloads.data.filesystem import explained, open_filesystem, read_file
from workloads.data.image_facts import ImageFacts, Trait, image_facts
from workloads.data.processes import Tick, in_processes
from workloads.data.scan import EXTENSIONS, SPLITS, is_text, leads_nowhere, refuse_odd_name

if TYPE_CHECKING:
    from pyarrow import fs

_CHUNK = 64

_NOTES: dict[Trait, str] = {
    "grayscale": "are grayscale; read as red, green and blue",
    "cmyk": "are CMYK; converted to red, green and blue",
    "16-bit": "have 16 bits per channel; the lower eight are left out",
    "animated": "are animated; the first picture is read",
    "transparent": "have transparency; the colours stored below it are read",
    "rotated": "are turned by their EXIF data; read upright",
    "wrong extension": "have another format than their extension says; read as what they are",
}


@dataclass(frozen=True)
class _Listed:
    """One image as the listing knows it."""

    name: str
    split: str
    label: str
    bytes: int


def check_folder(
    filesystem: "fs.FileSystem",
    root: str,
    path: str,
    workers: int,
    max_pixels: int,
    progress: Callable[[int, int], None],
) -> CheckReport:
    begin = time.monotonic()
    images, counts, findings = _list_images(filesystem, root)
    chunks = [
        (path, tuple(image.name for image in images[first : first + _CHUNK]), max_pixels)
        for first in range(0, len(images), _CHUNK)
    ]
    facts: dict[str, ImageFacts] = {}
    for part in in_processes(
        _look, chunks, workers=workers, progress=lambda done: progress(done, len(images))
    ):
        facts.update(part)
    in_order = [facts[image.name] for image in images]
    findings += class_findings(counts)
    findings += _image_findings(images, in_order)
    sound = [pair for pair in zip(images, in_order, strict=True) if not pair[1].error]
    findings += duplicate_findings(
        [(image.name, image.split, image.label) for image, _ in sound],
        [fact.digest for _, fact in sound],
    )
    sizes = [one.size for one in in_order if one.size is not None]
    return CheckReport(
        path=path,
        form="image_folder",
        images=len(images),
        bytes=sum(image.bytes for image in images),
        seconds=time.monotonic() - begin,
        counts=counts,
        size_range=size_range_of([w for w, _ in sizes], [h for _, h in sizes]),
        findings=in_order_of_level(findings),
    )


@cache
def _opened(path: str) -> "tuple[fs.FileSystem, str]":
    return open_filesystem(path)


def _look(chunk: tuple[str, tuple[str, ...], int], tick: Tick) -> dict[str, ImageFacts]:
    """Return the facts of some images, by name."""
    path, names, max_pixels = chunk
    filesystem, root = _opened(path)
    found = {}
    for name in names:
        try:
            data = read_file(filesystem, f"{root}/{name}", name)
            found[name] = image_facts(data, name, max_pixels)
        except DataError as error:  # this one file is gone, or may not be read
            reason = error.message.removeprefix(f"{printable(name)}: ")
            found[name] = ImageFacts(b"", reason)
        tick()
    return found


def _list_images(
    filesystem: "fs.FileSystem", root: str
) -> tuple[list[_Listed], dict[str, dict[str, int]], list[Finding]]:
    """Return the images in order, the counts by split and class, and what is wrong with both."""
    with explained(root):
        found = list(_entries(filesystem, root))
    counts: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    images: list[_Listed] = []
    dead_links: list[str] = []
    passed_over: list[str] = []
    other_folders: list[str] = []
    for name, is_folder, size in found:
        split, *inner = name.split("/")
        if any(part.startswith(".") for part in (split, *inner)):
            continue
        if split not in SPLITS:
            if is_folder and not inner:
                other_folders.append(split)
        elif is_folder and len(inner) == 1:
            refuse_odd_name(inner[0])
            counts[split].setdefault(inner[0], 0)
        elif size is None and len(inner) < 2:
            dead_links.append(name)
        elif not is_folder:
            if len(inner) < 2 or not name.lower().endswith(EXTENSIONS):
                passed_over.append(name)
                continue
            counts[split][inner[0]] = counts[split].get(inner[0], 0) + 1
            images.append(_Listed(name, split, inner[0], size or 0))
    images.sort(key=lambda image: (image.split, image.label, image.name))
    counts = {split: dict(sorted(of_class.items())) for split, of_class in counts.items()}
    findings = []
    if dead_links:
        text = "lead nowhere; mend or remove them"
        findings.append(finding_about("problem", "dead_link", sorted(dead_links), text, "link"))
    if odd := [image.name for image in images if not is_text(image.name)]:
        text = "have names that are not UTF-8; trainings take them, `data pack` does not"
        findings.append(finding_about("warning", "odd_name", odd, text))
    if passed_over:
        findings.append(
            finding_about(
                "note",
                "passed_over",
                sorted(passed_over),
                "are no images by place or extension",
                "file",
            )
        )
    if other_folders:
        text = "besides train and val, not read"
        findings.append(
            finding_about("note", "other_folder", sorted(other_folders), text, "folder")
        )
    return images, counts, findings


def _entries(filesystem: "fs.FileSystem", root: str) -> Iterator[tuple[str, bool, int | None]]:
    """Yield name, whether it is a folder, and size of all below `root`; None for a dead link."""
    from pyarrow import fs

    if isinstance(filesystem, fs.LocalFileSystem):
        yield from _local_entries(root, "")
        return
    for info in filesystem.get_file_info(fs.FileSelector(root, recursive=True)):
        name = info.path[len(root.rstrip("/")) + 1 :]
        yield name, info.type == fs.FileType.Directory, info.size or 0


def _local_entries(root: str, below: str) -> Iterator[tuple[str, bool, int | None]]:
    """Follow links as training does: to splits and classes, and not to folders inside a class."""
    with os.scandir(os.path.join(root, below)) as entries:
        for entry in entries:
            name = f"{below}{entry.name}"
            is_linked = name.count("/") > 1 and entry.is_symlink()
            if leads_nowhere(entry):
                yield name, False, None
            elif entry.is_dir() and not is_linked:
                yield name, True, 0
                if not entry.name.startswith(".") and name.split("/")[0] in SPLITS:
                    yield from _local_entries(root, f"{name}/")
            else:
                yield name, False, os.stat(entry).st_size if entry.is_file() else 0


def _image_findings(images: Sequence[_Listed], facts: Sequence[ImageFacts]) -> list[Finding]:
    """Say which images cannot be used, and which are unusual."""
    findings = []
    pairs = list(zip(images, facts, strict=True))
    bad = [f"{image.name}: {fact.error}" for image, fact in pairs if fact.error]
    if bad:
        findings.append(finding_about("problem", "unreadable", bad, "cannot be read"))
    for trait, text in _NOTES.items():
        names = [image.name for image, fact in pairs if trait in fact.traits and not fact.error]
        if names:
            findings.append(finding_about("note", trait.replace(" ", "_"), names, text))
    return findings
