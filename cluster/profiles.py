"""A named cluster's addresses. Light on purpose: every command imports this module."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.credentials import read_token
from cluster.errors import NOT_FOUND, ClusterError
from cluster.layout import Layout, read_json

__all__ = ["EMBEDDED", "ClusterError", "Profile", "gcpctl_home", "load_profile", "parse_profile"]

EMBEDDED = "embedded"
_SEE = "See docs/operations.md, Profiles."


def gcpctl_home() -> Path:
    """Return the state folder: $GCPCTL_HOME, else the platform's data folder. Not created here."""
    chosen = os.environ.get("GCPCTL_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return platformdirs.user_data_path("gcpctl")


@dataclass(frozen=True)
class Profile:
    """The addresses of one cluster.

    Attributes:
        name: "embedded", or the name of a file in `<home>/profiles`.
        ray_url: Ray's dashboard and Jobs API.
        ray_address: `host:port` of the GCS, for drivers that run on the cluster.
        mlflow_url: The tracking server.
        token_path: File with the token of both; mode 0600.
        storage_path: Checkpoints; a folder all nodes see.
        nudge_path: Touch it to wake the controller at once; embedded only.
        ray_log_root: Ray's temporary folder, where logs of dead heads remain; embedded only.
    """

    name: str
    ray_url: str
    ray_address: str
    mlflow_url: str
    token_path: Path
    storage_path: Path
    nudge_path: Path | None = None
    ray_log_root: Path | None = None

    def token(self) -> str:
        """Return the token; refuse a file that others can read."""
        return read_token(self.token_path)


def load_profile(name: str | None = None) -> Profile | None:
    """Return the profile called `name`, else $GCPCTL_PROFILE, else the embedded cluster's.

    Returns:
        None when the embedded cluster was never brought up.

    Raises:
        ClusterError: No such profile (5), or its file is damaged or may not be read (3).
    """
    home = gcpctl_home()
    name = name or os.environ.get("GCPCTL_PROFILE") or EMBEDDED
    if name == EMBEDDED:
        content = _read(Layout(home).profile, "`gcpctl cluster up` rewrites it.")
        return None if content is None else parse_profile(EMBEDDED, content, Layout(home).cluster)
    folder = home / "profiles"
    path = folder / f"{name}.json"
    content = _read(path, _SEE) if Path(name).name == name else None
    if content is None:
        known = sorted(path.stem for path in folder.glob("*.json"))
        listing = ", ".join([EMBEDDED, *known])
        raise ClusterError(
            f"There is no profile {name!r} in {folder}; there is: {listing}.",
            f"Write {path}, or unset GCPCTL_PROFILE.",
            NOT_FOUND,
        )
    return parse_profile(name, content, folder)


def _read(path: Path, remedy: str) -> dict[str, Any] | None:
    """Return a profile file's content; None only when there is no such file."""
    try:
        return read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ClusterError(
            f"Cannot read {path}: {error.strerror}.", f"Use the account it belongs to. {remedy}"
        ) from error
    except ValueError:
        raise ClusterError(f"{path} is damaged: it holds no JSON object.", remedy) from None


def parse_profile(name: str, content: dict[str, Any], folder: Path) -> Profile:
    """Build a profile from a file's content; relative paths start at `folder`."""
    wanted = ("ray_url", "mlflow_url", "token_path", "storage_path")
    missing = [key for key in wanted if not isinstance(content.get(key), str)]
    if missing:
        raise ClusterError(
            f"The profile {name!r} in {folder} lacks {', '.join(missing)}.",
            "Run `gcpctl cluster down` and `gcpctl cluster up`." if name == EMBEDDED else _SEE,
        )

    def path_of(key: str) -> Path | None:
        value = content.get(key)
        return folder / Path(value).expanduser() if isinstance(value, str) else None

    token_path, storage_path = path_of("token_path"), path_of("storage_path")
    assert token_path is not None
    assert storage_path is not None
    return Profile(
        name=name,
        ray_url=content["ray_url"].rstrip("/"),
        ray_address=str(content.get("ray_address", "auto")),
        mlflow_url=content["mlflow_url"].rstrip("/"),
        token_path=token_path,
        storage_path=storage_path,
        nudge_path=path_of("nudge_path"),
        ray_log_root=path_of("ray_log_root"),
    )
