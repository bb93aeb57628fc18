"""What an image folder holds, and whether it can be read. Needs no torch; Pillow only to decode.

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
from workloads.data.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
SPLITS = ("train", "val")
_BAD_ITSELF = frozenset({None, errno.ENOENT, errno.EACCES, errno.EISDIR})
"""What the system says of a file or folder that is bad itself; Pillow's decoders say nothing.

Any other number is of the storage or the machine, and no reason to leave an image out."""
_MOST_PER_CHUNK = 256
_LAYOUT = "expected <path>/train/<class>/*.jpg and <path>/val/<class>/*.jpg"

Sample = tuple[str, int]
"""Path relative to the folder, with forward slashes; number of the class."""


@dataclass(frozen=True)
class FolderIndex:
    """The images of a folder, in a fixed order.

    Attributes:
        path: The folder.
        classes: Class names, sorted; a class's number is its place.
        train: Training images, by class, then by name.
        val: Validation images, likewise.
    """

    path: Path
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
            present = {label for _, label in samples}
            for label, name in enumerate(self.classes):
                if label not in present:
                    raise DataError(
                        f"no readable image is left in {self.path / split / name}",
                        f"all {sum(n.startswith(f'{split}/{name}/') for n in names)} are bad",
                    )
        return index

    def digest(self, *, with_sizes: bool = True) -> str:
        """Return the SHA-256 of the images' names and sizes in bytes."""
        digest = hashlib.sha256()
        for name, _ in (*self.train, *self.val):
            size = (self.path / name).stat().st_size if with_sizes else ""
            digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def scan_image_folder(path: str | os.PathLike[str]) -> FolderIndex:
    """List the images under `path`. Hidden files and other extensions are passed over.

    Raises:
        DataError: If there is no such folder, or it is not laid out as it must be.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(f"there is no folder {root}", "the path must exist on every node")
    if not root.is_dir():
        raise DataError(f"{root} is a file, not a folder", _LAYOUT)
    names = _folders(root)
    for split in SPLITS:
        if split not in names:
            raise DataError(f"{root} has no folder {split!r}", _LAYOUT)
    found = {split: _classes(root / split) for split in SPLITS}
    _refuse_one_sided(root, found)
    classes = sorted(found["train"])
    samples = {
        split: [
            (f"{split}/{name}/{image}", label)
            for label, name in enumerate(classes)
            for image in found[split][name]
        ]
        for split in SPLITS
    }
    return FolderIndex(root, classes, samples["train"], samples["val"])


def _classes(folder: Path) -> dict[str, list[str]]:
    names = _folders(folder)
    if not names:
        raise DataError(f"{folder} has no class folders", _LAYOUT)
    classes = {name: sorted(_images(folder / name)) for name in names}
    for name, images in classes.items():
        if not images:
            known = " ".join(extension[1:] for extension in EXTENSIONS)
            raise DataError(f"{folder / name} holds no images", f"looked for {known}")
    return classes


def _refuse_one_sided(root: Path, found: dict[str, dict[str, list[str]]]) -> None:
    for here, there in (SPLITS, SPLITS[::-1]):
        alone = sorted(set(found[here]) - set(found[there]))
        if alone:
            shown = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
            hint = did_you_mean(alone[0], sorted(set(found[there]) - set(found[here])))
            raise DataError(
                f"{len(alone)} class(es) in {root / here} but not in {root / there}: {shown}", hint
            )


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise _explained(folder, error) from None


def _images(folder: Path) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise _explained(error.filename, error)

    for base, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield (Path(base) / name).relative_to(folder).as_posix()


def _explained(folder: str | Path, error: OSError) -> Exception:
    if error.errno not in _BAD_ITSELF:
        return error
    return DataError(f"cannot read {folder}: {error.strerror or error}")


def open_image(path: Path, max_pixels: int) -> "Image.Image":
    """Open and fully decode an image; only `load` notices a file that is cut short.

    Raises:
        DataError: With the path and the reason, if it cannot be decoded or is too large. Its size
            is read from the header, before any memory is spent on its pixels.
        OSError: The storage failed; the image may be sound.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > max_pixels:
                size = f"{width}x{height} pixels"
                raise DataError(f"{path}: {size}, more than max_pixels={max_pixels}")
            image.load()
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        raise DataError(f"{path}: {'is empty' if empty else 'is not an image'}") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in _BAD_ITSELF:
            raise
        # Pillow's decoders raise whatever they stumble over: OSError, SyntaxError, struct.error.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: {reason}") from None
    if image.mode == "F":
        raise DataError(f"{path}: its pixels are floating-point numbers of unknown range")
    return image


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
    reasons = find_bad_images(index.path, names, max_pixels)
    return judge_bad_images(index, names, reasons, on_bad_image)


def image_names(index: FolderIndex, limit: int | None = None) -> list[str]:
    """Return the names of all images, or of the first `limit` of each split."""
    return [name for split in (index.train, index.val) for name, _ in split[:limit]]


def find_bad_images(path: Path, names: Sequence[str], max_pixels: int) -> dict[str, str]:
    """Decode images and return why the bad ones cannot be used, by name."""
    reasons: dict[str, str] = {}
    lock = threading.Lock()

    def check(name: str) -> None:
        try:
            open_image(path / name, max_pixels).close()
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
    """Pillow decodes outside Python's lock, so threads are enough.

    They take chunks: a future for each of a million images would cost a gigabyte.
    """
    workers = min(16, len(os.sched_getaffinity(0)) + 2) if hasattr(os, "sched_getaffinity") else 8
    with ThreadPoolExecutor(max_workers=workers) as pool:
        size = min(max(math.ceil(len(names) / (4 * workers)), 1), _MOST_PER_CHUNK)
        chunks = [names[first : first + size] for first in range(0, len(names), size)]
        for _ in pool.map(lambda chunk: [check(name) for name in chunk], chunks):
            pass
