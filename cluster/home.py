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

_BEFORE_THE_MARK = {"cluster", "profiles"}  # what a home may hold that was never brought up


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
    """Create the home, its folders (0700) and the token; refuse a home that is not ours.

    A folder that was there before keeps its mode: it may be `/tmp`. Only what is inside is made
    private.
    """
    with explained(layout.home):
        try:
            layout.home.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            if not layout.home.is_dir():
                raise
            _refuse_foreign(layout)
        for folder in layout.folders():
            folder.mkdir(mode=0o700, exist_ok=True)
            if not folder.is_symlink():  # a person put it elsewhere, and chose who sees it
                folder.chmod(0o700)
            if folder == layout.cluster:
                create_token(layout.token)  # before the rest: it marks the folder as a home


def _refuse_foreign(layout: Layout) -> None:
    """Refuse an existing folder that is somebody else's, or in use for something else."""
    owner = layout.home.stat().st_uid
    if owner != os.getuid():
        raise ClusterError(
            f"{layout.home} belongs to another user (uid {owner}).",
            "Set GCPCTL_HOME to a folder of your own.",
        )
    # In this order: a gcpctl at work in another terminal makes a mark before most folders.
    others = sorted({path.name for path in layout.home.iterdir()} - _BEFORE_THE_MARK)
    marks = [layout.token, layout.profile, layout.lock, layout.mlflow / "mlflow.db"]
    if others and not any(map(os.path.lexists, marks)):
        raise ClusterError(
            f"{layout.home} holds other things ({others[0]}) and is no home of gcpctl.",
            f"Set GCPCTL_HOME to a new or empty folder, such as {layout.home / 'gcpctl'}.",
        )
