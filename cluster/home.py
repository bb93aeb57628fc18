"""The state folder of the embedded cluster, made ready or refused with a remedy."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.credentials import create_token
from cluster.errors import ClusterError
from cluster.layout import Layout


@contextmanager
def explained(home: Path) -> Iterator[None]:
    """Turn what a disk can do to us into a sentence and a remedy."""
    try:
        yield
    except OSError as error:
        place = error.filename or home
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ClusterError(
                f"No space left at {place}.",
                "Free some space, or set GCPCTL_HOME to a folder on another disk.",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise ClusterError(
                f"Cannot write to {place}: {error.strerror}.",
                "Set GCPCTL_HOME to a folder of your own.",
            ) from error
        raise


def prepare_home(layout: Layout) -> None:
    """Create the folders (0700) and the token; refuse a home that is not ours."""
    with explained(layout.home):
        for folder in layout.folders():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = layout.home.stat().st_uid
        if owner != os.getuid():
            raise ClusterError(
                f"{layout.home} belongs to another user (uid {owner}).",
                "Set GCPCTL_HOME to a folder of your own.",
            )
        for folder in layout.folders():
            folder.chmod(0o700)
        create_token(layout.token)
