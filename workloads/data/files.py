"""Where an image folder's files are: on this machine, or in object storage. Needs no torch."""

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workloads.data.errors import DataError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

BAD_ITSELF = frozenset({None, errno.ENOENT, errno.EACCES, errno.EISDIR})
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
        DataError: It is a pipe, a device or a folder.
        OSError: It cannot be opened or read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DataError(f"{path}: is no regular file")
        return file.read()


@dataclass(frozen=True)
class LocalFiles:
    """Files below a folder of this machine."""

    path: Path

    def read(self, name: str) -> bytes:
        """Return all bytes of a file."""
        try:
            return read_regular_file(self.path / name)
        except OSError as error:
            if error.errno not in BAD_ITSELF:
                raise
            reason = error.strerror or str(error)
            raise DataError(f"{self.path / name}: {reason}") from None

    def size(self, name: str) -> int:
        """Return a file's size in bytes."""
        return (self.path / name).stat().st_size

    def where(self, name: str) -> str:
        """Return the full path of a file or folder."""
        return str(self.path / name)


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
        return f"{self.uri.rstrip('/')}/{name}"

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "sizes": self.sizes, "_opened": {}}
