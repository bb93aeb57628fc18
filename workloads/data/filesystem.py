"""Folders on this machine or in object storage, behind one interface: pyarrow's file systems.

A path is a local one, or a URI: `file:///folder`, `s3://bucket/folder`, `gs://bucket/folder`,
`hdfs://host:port/folder`. Credentials, region and endpoint come from where each store's own tools
take them (for S3 the environment, `~/.aws` or the machine's role); options of pyarrow may stand in
the URI, such as `s3://bucket/folder?region=eu-central-1`. Needs no torch, and pyarrow only to open
something.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from workloads.config.errors import did_you_mean
from workloads.data.errors import DataError
from workloads.data.files import read_local

if TYPE_CHECKING:
    from pyarrow import fs

REMOTE_SCHEMES = ("s3", "gs", "gcs", "hdfs")
_CREDENTIALS = {
    "s3": "S3 takes AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL from the "
    "environment, or ~/.aws; they must be there on every node",
    "gs": "Google's storage takes GOOGLE_APPLICATION_CREDENTIALS from the environment, on every "
    "node",
    "hdfs": "HDFS needs Java and Hadoop: JAVA_HOME, HADOOP_HOME and CLASSPATH on every node",
}
_REFUSED = (
    "ACCESS_DENIED",
    "EXPIRED_TOKEN",
    "HTTP status 401",
    "HTTP status 403",
    "INVALID_ACCESS_KEY",
    "PERMISSION_DENIED",
    "SIGNATURE_DOES_NOT_MATCH",
    "UNRECOGNIZED_CLIENT",
    "libhdfs",
    "libjvm",
)
"""What the stores' own libraries say of credentials and set-up; a retry would meet it again."""
_MISSING = ("NO_SUCH_BUCKET", "NO_SUCH_KEY", "HTTP status 404")


class StorageError(OSError):
    """A store that could not be asked; what lies in it may be sound, so a retry makes sense.

    Attributes:
        message: What failed, with the path.
        hint: What to look at.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.errno = errno.EHOSTUNREACH  # what a job's retry goes by
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type["StorageError"], tuple[str, str]]:
        return StorageError, (self.message, self.hint)


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether `path` names a folder in a store, by its scheme; `file://` is this machine's."""
    scheme = _scheme(os.fspath(path))
    return scheme not in ("", "file")


def local_path(path: str | os.PathLike[str]) -> str:
    """Return a local path without its `file://`."""
    text = os.fspath(path)
    if _scheme(text) != "file":
        return text
    return unquote(urlsplit(text).path)


def open_filesystem(path: str | os.PathLike[str]) -> "tuple[fs.FileSystem, str]":
    """Return the file system that holds the folder `path`, and the folder's name in it.

    Names below the folder are joined to it with a forward slash. A file system is opened in the
    process that uses it: one of a store does not survive a fork.

    Raises:
        DataError: If the scheme is unknown, there is no such folder, or access is refused.
        StorageError: If the store does not answer.
    """
    from pyarrow import fs

    text = os.fspath(path)
    with explained(text):
        if is_remote(text):
            _refuse_unknown_scheme(text)
            filesystem, root = _open_remote(text)
        else:
            filesystem, root = fs.LocalFileSystem(), os.path.abspath(local_path(text))
        root = root.rstrip("/") or "/"
        kind = filesystem.get_file_info(root).type
    if kind == fs.FileType.NotFound:
        raise DataError(f"there is no folder {text}", _where(text))
    if kind != fs.FileType.Directory:
        raise DataError(f"{text} is a file, not a folder")
    return filesystem, root


def _refuse_unknown_scheme(path: str) -> None:
    scheme = _scheme(path)
    if scheme not in REMOTE_SCHEMES:
        close = did_you_mean(scheme, (*REMOTE_SCHEMES, "file"))
        known = "known: a local path, file://, s3://, gs://, hdfs://"
        raise DataError(
            f"{path}: unknown scheme {scheme!r}", "; ".join(filter(None, (close, known)))
        )


def _open_remote(uri: str) -> "tuple[fs.FileSystem, str]":
    from pyarrow import fs

    filesystem, root = fs.FileSystem.from_uri(uri)
    return filesystem, root


def list_files(filesystem: "fs.FileSystem", folder: str) -> "list[fs.FileInfo]":
    """Return all files below `folder`, sorted by path; empty where there is no such folder."""
    from pyarrow import fs

    with explained(folder):
        selector = fs.FileSelector(folder, allow_not_found=True, recursive=True)
        if filesystem.get_file_info(folder).type == fs.FileType.File:
            return []
        found = filesystem.get_file_info(selector)
    return sorted((i for i in found if i.type == fs.FileType.File), key=lambda i: i.path)


def read_file(filesystem: "fs.FileSystem", path: str, name: str | None = None) -> bytes:
    """Return all bytes of the file `path`, called `name` in errors.

    Raises:
        DataError: If it is not there or access is refused.
        StorageError: If the store does not answer.
    """
    from pyarrow import fs

    if isinstance(filesystem, fs.LocalFileSystem):
        return read_local(Path(path), name or path)
    with explained(name or path), filesystem.open_input_file(path) as file:
        return file.read()  # type: ignore[no-any-return]


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn pyarrow's errors about `path` into ours; errors of a local disk stay what they are."""
    try:
        yield
    except (DataError, StorageError):
        raise
    except FileNotFoundError:
        raise DataError(f"there is no file {path}", _where(path)) from None
    except (PermissionError, NotADirectoryError) as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:  # pyarrow.ArrowInvalid
        raise DataError(f"cannot use {path}: {_first_line(error)}") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            raise DataError(f"cannot use {path}: {os.strerror(error.errno)}") from None
        if error.errno is not None:
            raise
        text = str(error)
        hint = _CREDENTIALS.get(_scheme(path).replace("gcs", "gs"), "")
        if any(sign in text for sign in _REFUSED):
            raise DataError(f"cannot read {path}: {_first_line(error)}", hint) from None
        if any(sign in text for sign in _MISSING):
            raise DataError(f"there is nothing at {path}", hint) from None
        raise StorageError(f"cannot reach {path}: {_first_line(error)}", hint) from None


def _scheme(path: str) -> str:
    scheme, separator, _ = path.partition("://")
    return scheme.lower() if separator and scheme and "/" not in scheme else ""


def _where(path: str) -> str:
    return "look for a slip in it" if is_remote(path) else "the path must exist on every node"


def _first_line(error: Any) -> str:
    line = str(error).partition("\n")[0]
    return line if len(line) <= 300 else f"{line[:297]}..."
