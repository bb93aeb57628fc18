"""The cluster's token: one secret in one file that only its owner can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cluster.errors import AUTHENTICATION, ClusterError


def create_token(path: Path) -> None:
    """Write a new token to `path` with mode 0600, whatever the umask; keep one that exists."""
    import secrets  # here: every command imports this module, one in a home's life comes here

    try:
        if path.stat().st_size:
            return
        path.unlink()  # left empty by a crash or a full disk between creation and write
    except FileNotFoundError:
        pass
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, secrets.token_urlsafe(32).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(draft, path)  # never replaces a token somebody else wrote meanwhile
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)


def read_token(path: Path) -> str:
    """Return the token in `path`.

    Raises:
        ClusterError: The file is missing, empty or no text, or others than its owner can read
            it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        token = path.read_bytes().strip().decode("ascii")
    except FileNotFoundError:
        raise ClusterError(
            f"The cluster's token is missing: {path}.",
            "Run `gcpctl cluster down` and `gcpctl cluster up`, or fix token_path in the profile.",
            AUTHENTICATION,
        ) from None
    except UnicodeDecodeError:
        raise ClusterError(
            f"What is in {path} is not a token: it is not plain text.",
            f"Run `gcpctl cluster down`, delete {path}, then run `gcpctl cluster up`.",
            AUTHENTICATION,
        ) from None
    except OSError as error:
        raise ClusterError(
            f"Cannot read the cluster's token at {path}: {error.strerror}.",
            "Use the account that started the cluster.",
            AUTHENTICATION,
        ) from error
    if mode & 0o077:
        raise ClusterError(
            f"Others can read the cluster's token at {path} (mode {mode:04o}).",
            f"Run: chmod 600 {path}",
            AUTHENTICATION,
        )
    if not token:
        raise ClusterError(
            f"The cluster's token at {path} is empty.",
            f"Run `gcpctl cluster down`, delete {path}, then run `gcpctl cluster up`.",
            AUTHENTICATION,
        )
    return token
