"""Every operation on storage that must survive a crash, as one seam.

Tests wrap these functions to crash, fill the disk or lose power at the n-th operation. So nothing
else in this package writes, renames or removes files that a resume depends on.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO


def make_folder(path: Path) -> None:
    """Create a folder and the missing ones above it."""
    path.mkdir(parents=True, exist_ok=True)


def write(handle: BinaryIO, data: bytes | memoryview) -> None:
    """Write all bytes to an open file; an unbuffered one may take them in pieces."""
    view = memoryview(data)
    while view.nbytes:
        view = view[handle.write(view) :]


def sync(handle: BinaryIO) -> None:
    """Bring an open file's bytes to the device."""
    handle.flush()
    os.fsync(handle.fileno())


def sync_folder(path: Path) -> None:
    """Bring a folder's entries to the device, so that a rename in it survives a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """Rename within one file system; an existing file at `target` is replaced in one step."""
    os.replace(source, target)


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it; nothing happens if it is not there."""
    if path.exists():
        shutil.rmtree(path)


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file so that a reader or a crash meets the old or the new one, never half."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as handle:
            write(handle, data)
            sync(handle)
        move(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a value as a JSON file, as `write_file` does."""
    write_file(path, json.dumps(value, indent=1).encode() + b"\n")


def write_json_fleeting(path: Path, value: Any) -> None:
    """Replace a JSON file in one step without waiting for the device; may be lost, never torn."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.write_text(json.dumps(value) + "\n")
    os.replace(beside, path)
