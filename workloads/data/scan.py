"""What an image folder holds, and whether it can be read. Needs no torch; NumPy only to decode.

path/train/<class>/**/*.jpg        path/val/<class>/**/*.jpg
"""

import errno
import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from workloads.config.errors import did_you_mean
from workloads.data.errors import DataError, printable
from workloads.data.files import (
    BAD_ITSELF,
    ImageFiles,
    LocalFiles,
    StoredFiles,
    local_folder,
)

if TYPE_CHECKING:
    from workloads.data.decode import Pixels

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
SPLITS = ("train", "val")
_MOST_PER_CHUNK = 256
_LAYOUT = "expected <path>/train/<class>/*.jpg and <path>/val/<class>/*.jpg"

Sample = tuple[str, int]
"""Path relative to the folder, with forward slashes; number of the class."""


@dataclass(frozen=True)
class FolderIndex:
    """The images of a folder, in a fixed order.

    Attributes:
        files: Where the images are.
        classes: Class names, sorted; a class's number is its place.
        train: Training images, by class, then by name.
        val: Validation images, likewise.
    """

    files: ImageFiles
    classes: list[str]
    train: list[Sample]
    val: list[Sample]

    def without(self, names: set[str]) -> "FolderIndex":
        """Return the index without some images.

        Raises:
            DataError: If a class would have none left in a split.
        """
        index = replace(
            self,
            train=[sample for sample in self.train if sample[0] not in names],
            val=[sample for sample in self.val if sample[0] not in names],
        )
        for split, samples in (("train", index.train), ("val", index.val)):
            if not getattr(self, split):
                continue  # it was missing from the beginning
            present = {label for _, label in samples}
            for label, name in enumerate(self.classes):
                if label not in present:
                    raise DataError(
                        f"no readable image is left in {self.files.where(f'{split}/{name}')}",
                        f"all {sum(n.startswith(f'{split}/{name}/') for n in names)} are bad",
                    )
        return index

    def only(self, split: Literal["train", "val"]) -> "FolderIndex":
        """Return the index without the images of the other split."""
        return replace(self, train=[]) if split == "val" else replace(self, val=[])

    def digest(self, *, with_sizes: bool = True) -> str:
        """Return the SHA-256 of the images' names and sizes in bytes."""
        digest = hashlib.sha256()
        for name, _ in (*self.train, *self.val):
            size = size_of(self.files, name) if with_sizes else ""
            digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def scan_image_folder(path: str | os.PathLike[str], needed: Sequence[str] = SPLITS) -> FolderIndex:
    """List the images under `path`. Hidden files and other extensions are passed over.

    Args:
        path: Of this machine, or a URI such as `s3://bucket/folder`.
        needed: Splits that must be there; another one may be missing, and is then empty.

    Raises:
        DataError: If there is no such folder, or it is not laid out as it must be.
        OSError: The storage failed.
    """
    text = os.fspath(path)
    if "://" in text:
        from workloads.data.filesystem import is_remote

        if is_remote(text):
            return _index_of(*_list_stored(text, needed))
    root = local_folder(text, "the path must exist on every node")
    return _index_of(LocalFiles(root), _list_local(root, needed))


Listing = dict[str, dict[str, list[str]]]
"""Names of images below their class's folder, sorted, by split and class."""


def _index_of(files: ImageFiles, found: Listing) -> FolderIndex:
    """Number the classes and put the images in order."""
    for split, of_class in found.items():
        for name, images in of_class.items():
            if not images:
                known = " ".join(extension[1:] for extension in EXTENSIONS)
                raise DataError(
                    f"{files.where(f'{split}/{name}')} holds no images", f"looked for {known}"
                )
    if len(found) == len(SPLITS):
        _refuse_one_sided(files, found)
    classes = sorted(next(iter(found.values())))
    if len(classes) == 1:
        where = files.where(next(iter(found)))
        raise DataError(f"{where} holds one class, {classes[0]}", "it takes two to tell apart")
    samples = {
        split: [
            (f"{split}/{name}/{image}", label)
            for label, name in enumerate(classes)
            for image in found.get(split, {}).get(name, ())
        ]
        for split in SPLITS
    }
    return FolderIndex(files, classes, samples["train"], samples["val"])


def _list_stored(uri: str, needed: Sequence[str]) -> tuple[StoredFiles, Listing]:
    """List a folder of a store; it has no folders of its own, only names with slashes."""
    from workloads.data.filesystem import list_files, open_filesystem

    filesystem, root = open_filesystem(uri)
    sizes: dict[str, int] = {}
    found: Listing = {}
    for split in SPLITS:
        listed = list_files(filesystem, f"{root}/{split}")
        if not listed and split not in needed:
            continue
        if not listed:
            raise DataError(f"{uri} has no folder {split!r}", _LAYOUT)
        for info in listed:
            name, _, image = info.path[len(root) + len(split) + 2 :].partition("/")
            if not image or name.startswith("."):
                continue
            images = found.setdefault(split, {}).setdefault(name, [])
            if _is_image(image):
                images.append(image)
                sizes[f"{split}/{name}/{image}"] = info.size
        if split not in found:
            raise DataError(f"{uri.rstrip('/')}/{split} has no class folders", _LAYOUT)
    for of_class in found.values():
        for images in of_class.values():
            images.sort()
    return StoredFiles(uri, sizes), found


def _is_image(name: str) -> bool:
    """Say whether an image's name, below its class's folder, is one that is taken."""
    hidden = any(part.startswith(".") for part in name.split("/"))
    return name.lower().endswith(EXTENSIONS) and not hidden


def _list_local(root: Path, needed: Sequence[str]) -> Listing:
    other = [split for split in SPLITS if split not in needed and (root / split).is_dir()]
    names = _folders(root, among=(*needed, *other))
    for split in needed:
        if split not in names:
            raise _no_split(root, split)
    return {split: _classes(root / split) for split in SPLITS if split in names}


def _no_split(root: Path, split: str) -> DataError:
    """Return the error that says what is there instead of a split."""
    if (root / "manifest.json").is_file():
        return DataError(
            f"{root} has no folder {split!r}, but a manifest.json, as packed images have",
            "to train on a pack: data.name=packed; to pack anew, name the folder of images that "
            "it was made of",
        )
    there = [printable(one.name) for one in sorted(root.iterdir()) if one.is_dir()]
    shown = ", ".join(there[:5]) + (", ..." if len(there) > 5 else "")
    holds = f"; its folders are {shown}" if there else "; it holds no folders"
    return DataError(f"{root} has no folder {split!r}{holds}", _LAYOUT)


def _classes(folder: Path) -> dict[str, list[str]]:
    names = _folders(folder)
    if not names:
        raise DataError(f"{folder} has no class folders", _LAYOUT)
    return {name: sorted(_images(folder / name)) for name in names}


def class_folders(root: Path, split: str) -> list[str]:
    """Return the names of the classes of a split, sorted, without a look at its images.

    Raises:
        DataError: There is no such folder or split.
    """
    if split not in _folders(root, among=(split,)):
        raise _no_split(root, split)
    return _folders(root / split)


def _refuse_one_sided(files: ImageFiles, found: Listing) -> None:
    for here, there in (SPLITS, SPLITS[::-1]):
        alone = sorted(set(found[here]) - set(found[there]))
        if alone:
            shown = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
            hint = did_you_mean(alone[0], sorted(set(found[there]) - set(found[here])))
            shown = printable(shown)
            raise DataError(
                f"{len(alone)} class(es) in {files.where(here)} but not in {files.where(there)}: "
                f"{shown}",
                hint,
            )


def size_of(files: ImageFiles, name: str) -> int:
    """Return a file's size in bytes; 0 where there is no such file, as reading it will say."""
    try:
        return files.size(name)
    except OSError as error:
        if error.errno not in BAD_ITSELF:
            raise
        return 0


def is_text(name: str) -> bool:
    """Whether the name of a file is UTF-8, as most file systems do not ask it to be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse_odd_name(name: str) -> None:
    """Refuse the name of a class, or of what is packed, that cannot be stored as text.

    Raises:
        DataError: It is not UTF-8.
    """
    if not is_text(name):
        raise DataError(f"the file name {os.fsencode(name)!r} is not UTF-8", "rename it")


def _folders(folder: Path, among: Sequence[str] | None = None) -> list[str]:
    """Return the names of the folders in a folder, sorted; hidden ones and others are left out.

    Raises:
        DataError: A link leads nowhere: a class would be missing without a word.
    """
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or (among is not None and entry.name not in among):
                    continue
                if leads_nowhere(entry):
                    raise DataError(
                        f"{printable(entry.path)} is a link that leads nowhere",
                        "mend or remove it",
                    )
                if entry.is_dir():
                    refuse_odd_name(entry.name)
                    found.append(entry.name)
    except OSError as error:
        raise _explained(folder, error) from None
    return sorted(found)


def leads_nowhere(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a link to what is not there, or to itself.

    Raises:
        OSError: The storage failed, which says nothing of the link.
    """
    if not entry.is_symlink():
        return False
    try:
        entry.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return True
    return False


def _images(folder: Path) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise _explained(error.filename, error)

    for base, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if _is_image(name):
                yield (Path(base) / name).relative_to(folder).as_posix()


def _explained(folder: str | Path, error: OSError) -> Exception:
    if error.errno not in BAD_ITSELF:
        return error
    return DataError(f"cannot read {folder}: {error.strerror or error}")


def load_image(files: ImageFiles, name: str, max_pixels: int) -> "Pixels":
    """Read and decode an image of a folder, uint8 (H, W, 3).

    Raises:
        DataError: With the path and the reason, if it cannot be decoded or is too large.
        OSError: The storage failed; the image may be sound.
    """
    from workloads.data.decode import decode_image

    return decode_image(files.read(name), name=files.where(name), max_pixels=max_pixels)


def check_images(
    index: FolderIndex,
    *,
    max_pixels: int,
    on_bad_image: Literal["fail", "skip"],
    limit: int | None = None,
) -> list[str]:
    """Decode every image once, or the first `limit` of each split, and find the bad ones.

    Returns:
        The names of bad images; empty unless `on_bad_image` is "skip".

    Raises:
        DataError: Under "fail", with up to five bad files, reasons and the count; under "skip",
            if a class would be left without images.
    """
    names = image_names(index, limit)
    reasons = find_bad_images(index.files, names, max_pixels)
    return judge_bad_images(index, names, reasons, on_bad_image)


def image_names(index: FolderIndex, limit: int | None = None) -> list[str]:
    """Return the names of all images, or of the first `limit` of each split."""
    return [name for split in (index.train, index.val) for name, _ in split[:limit]]


def find_bad_images(files: ImageFiles, names: Sequence[str], max_pixels: int) -> dict[str, str]:
    """Decode images and return why the bad ones cannot be used, by name."""
    reasons: dict[str, str] = {}
    lock = threading.Lock()

    def check(name: str) -> None:
        try:
            load_image(files, name, max_pixels)
        except DataError as error:
            with lock:
                reasons[name] = error.message

    _in_threads(check, names)
    return reasons


def judge_bad_images(
    index: FolderIndex,
    names: Sequence[str],
    reasons: Mapping[str, str],
    on_bad_image: Literal["fail", "skip"],
) -> list[str]:
    """Return or refuse the bad ones among the checked `names`, as `check_images` says."""
    bad = [name for name in names if name in reasons]
    if bad and on_bad_image == "fail":
        shown = "".join(f"\n  {reasons[name]}" for name in bad[:5])
        more = f"\n  and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise DataError(
            f"{len(bad)} of {len(names)} images cannot be used:{shown}{more}\n",
            "mend or remove them, or leave them out with data.on_bad_image=skip",
        )
    if bad:
        index.without(set(bad))
    return bad


def _in_threads(check: Callable[[str], None], names: Sequence[str]) -> None:
    """Both decoders work outside Python's lock, so threads are enough.

    They take chunks: a future for each of a million images would cost a gigabyte.
    """
    workers = min(16, len(os.sched_getaffinity(0)) + 2) if hasattr(os, "sched_getaffinity") else 8
    with ThreadPoolExecutor(max_workers=workers) as pool:
        size = min(max(math.ceil(len(names) / (4 * workers)), 1), _MOST_PER_CHUNK)
        chunks = [names[first : first + size] for first in range(0, len(names), size)]
        for _ in pool.map(lambda chunk: [check(name) for name in chunk], chunks):
            pass
