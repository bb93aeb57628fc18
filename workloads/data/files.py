"""Where an image folder's files are: on this machine, or in object storage. Needs no torch."""

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workloads.data.errors import DataError, printable

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

BAD_ITSELF = frozenset(
    {
        None,
        errno.ENOENT,
        errno.EACCES,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
    }
)
"""What the system says of a file or folder that is bad itself.

Any other number is of the storage or the machine, and no reason to leave an image out."""


class ImageFiles(Protocol):
    """Files below one folder, by names with forward slashes."""

    def read(self, name: str) -> bytes:
        """Return all bytes of a file.

        Raises:
            DataError: It is not there, or cannot be opened.
            OSError: The storage failed; the file may be sound.
        """
        ...

    def size(self, name: str) -> int:
        """Return a file's size in bytes."""
        ...

    def where(self, name: str) -> str:
        """Return the full path of a file or folder, for messages."""
        ...


def read_regular_file(path: Path) -> bytes:
    """Return all bytes of a file; a pipe by the name of an image is refused, not waited for.

    Raises:
        OSError: It cannot be opened or read, or is a pipe, a device or a folder.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("is no regular file")
        return file.read()


def read_local(path: Path, name: str) -> bytes:
    """Return all bytes of a file of this machine, called `name` in errors.

    Raises:
        DataError: It is not there, cannot be opened, or is no regular file.
        OSError: The storage failed.
    """
    try:
        return read_regular_file(path)
    except ValueError:  # a NUL in the name
        raise DataError(f"{name}: no file can be called so") from None
    except OSError as error:
        if error.errno not in BAD_ITSELF:
            raise
        raise DataError(f"{name}: {error.strerror or error}") from None


def local_folder(path: str | os.PathLike[str], hint: str) -> Path:
    """Return a folder of this machine, by its path or `file://`.

    Raises:
        DataError: There is no such folder, or it lies in a store; with `hint`.
        OSError: The storage failed.
    """
    from workloads.data.filesystem import is_remote, local_path

    if is_remote(path):
        raise DataError(
            f"{os.fspath(path)} is in a store, and this source is read from a local folder only",
            "copy it to a folder that every node sees; image_folder and packed read from stores",
        )
    root = Path(local_path(path))
    try:
        if stat.S_ISDIR(root.stat().st_mode):
            return root
    except (FileNotFoundError, ValueError):
        raise DataError(f"there is no folder {root}", hint) from None
    except OSError as error:
        if error.errno not in BAD_ITSELF:
            raise
        raise DataError(f"there is no folder {root}: {error.strerror or error}", hint) from None
    raise DataError(f"{root} is a file, not a folder", hint)


@dataclass(frozen=True)
class LocalFiles:
    """Files below a folder of this machine."""

    path: Path

    def read(self, name: str) -> bytes:
        """Return all bytes of a file."""
        return read_local(self.path / name, self.where(name))

    def size(self, name: str) -> int:
        """Return a file's size in bytes."""
        return (self.path / name).stat().st_size

    def where(self, name: str) -> str:
        """Return the full path of a file or folder."""
        return printable(str(self.path / name))


@dataclass(frozen=True)
class StoredFiles:
    """Files below a folder of a store that pyarrow reads, such as `s3://bucket/folder`.

    Attributes:
        sizes: In bytes by name, as the listing said them.
    """

    uri: str
    sizes: dict[str, int] = field(repr=False)
    _opened: dict[int, "tuple[FileSystem, str]"] = field(
        default_factory=dict, repr=False, compare=False
    )

    def read(self, name: str) -> bytes:
        """Return all bytes of a file."""
        from workloads.data.filesystem import open_filesystem, read_file

        # One connection per process: those of a store do not survive a fork.
        if os.getpid() not in self._opened:
            self._opened[os.getpid()] = open_filesystem(self.uri)
        filesystem, root = self._opened[os.getpid()]
        return read_file(filesystem, f"{root}/{name}")

    def size(self, name: str) -> int:
        """Return a file's size in bytes."""
        return self.sizes[name]

    def where(self, name: str) -> str:
        """Return the full path of a file or folder."""
        return printable(f"{self.uri.rstrip('/')}/{name}")

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "sizes": self.sizes, "_opened": {}}
