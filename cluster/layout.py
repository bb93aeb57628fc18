"""Where the embedded cluster keeps things: the one place that knows file names."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# AF_UNIX paths end at 107 bytes (103 on macOS); Ray appends up to
# "/session_2026-01-01_00-00-00_000000_4194304/sockets/dash_StateHead".
_SOCKET_PATH_MAX = 103
_RAY_SUFFIX = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/dash_StateHead")


@dataclass(frozen=True)
class Layout:
    """Paths below one home."""

    home: Path

    @property
    def cluster(self) -> Path:
        return self.home / "cluster"

    @property
    def lock(self) -> Path:
        return self.cluster / "lock"

    @property
    def supervisor_lock(self) -> Path:
        return self.cluster / "supervisor.lock"

    @property
    def profile(self) -> Path:
        return self.cluster / "profile.json"

    @property
    def token(self) -> Path:
        return self.cluster / "token"

    @property
    def nudge(self) -> Path:
        return self.cluster / "nudge"

    @property
    def heartbeat(self) -> Path:
        return self.cluster / "controller.heartbeat"

    @property
    def logs(self) -> Path:
        return self.cluster / "logs"

    @property
    def mlflow(self) -> Path:
        return self.home / "mlflow"

    @property
    def storage(self) -> Path:
        return self.home / "storage"

    def log(self, service: str) -> Path:
        return self.logs / f"{service}.log"

    def record(self, service: str) -> Path:
        """The pid file: which process runs the service, and its history."""
        return self.cluster / f"{service}.pid.json"

    def folders(self) -> list[Path]:
        """The folders inside the home that are ours alone."""
        return [self.cluster, self.logs, self.mlflow, self.storage]


def ray_temp_dir(home: Path, cluster_id: str, system_temp: Path | None = None) -> Path:
    """Choose Ray's folder: in the home, or a short one when sockets would not fit there.

    Ray opens its folder to everybody (0777), so it always lies in one that is private. The home
    need not be: it may be a folder that existed before.
    """
    inside = home / "ray" / "t"  # one letter, because sockets leave no room
    if len(os.fsencode(inside)) + _RAY_SUFFIX <= _SOCKET_PATH_MAX:
        return inside
    if system_temp is None:
        import tempfile  # here: every command imports this module, few come this far

        system_temp = Path(tempfile.gettempdir())
    outside = system_temp / f"gcpctl-{cluster_id[:8]}" / "ray"
    if len(os.fsencode(outside)) + _RAY_SUFFIX <= _SOCKET_PATH_MAX:
        return outside
    return Path("/tmp") / f"gcpctl-{cluster_id[:8]}" / "ray"


def save_json(path: Path, content: dict[str, Any]) -> None:
    """Write beside and move, with mode 0600: a reader sees the old text or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(content, stream, indent=1)
    os.replace(draft, path)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in `path`.

    Raises:
        OSError: It is missing or may not be read.
        ValueError: It is torn, or no object.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content


def load_json(path: Path) -> dict[str, Any] | None:
    """Return the object in `path`; None when it is missing, unreadable, torn or no object."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
