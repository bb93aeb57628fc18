"""The `ray` service: start Ray's processes, then watch them in a few megabytes.

`ray start --block` would do, but keeps 160 MB of imported Ray just to wait. This process
runs `ray start` once in a child, adopts the daemons it leaves, and ends, with all of them,
as soon as one of them ends: the supervisor then starts a whole new head.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from cluster.errors import ClusterError

_PR_SET_CHILD_SUBREAPER = 36
_KEEP_SESSIONS = 5
_DAEMONS = ("gcs_server", "raylet", "dashboard.py")


def main(arguments: list[str]) -> int:
    """Run a head with `ray start`'s arguments until one of its daemons ends."""
    prepare_temp_dir(
        Path(next(a for a in arguments if a.startswith("--temp-dir=")).partition("=")[2])
    )
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    starter = subprocess.run([sys.executable, "-m", "cluster.ray_start", *arguments], check=False)
    if starter.returncode:
        return starter.returncode
    return watch(find_daemons())


def prepare_temp_dir(folder: Path) -> None:
    """Put Ray's folder into a private one; drop all but the newest sessions of dead heads."""
    shelter = folder.parent
    shelter.mkdir(mode=0o700, parents=True, exist_ok=True)
    if shelter.is_symlink() or shelter.stat().st_uid != os.getuid():
        raise ClusterError(
            f"{shelter} belongs to somebody else.", "Remove it, or shorten the home."
        )
    shelter.chmod(0o700)
    folder.mkdir(exist_ok=True)
    sessions = sorted(
        (path for path in folder.glob("session_2*") if not path.is_symlink()),
        key=lambda path: path.stat().st_mtime,
    )
    for path in sessions[: -(_KEEP_SESSIONS - 1)]:
        shutil.rmtree(path, ignore_errors=True)


def find_daemons() -> dict[int, str]:
    """Return pid and name of Ray's daemons in our session."""
    import psutil

    found = {}
    for process in psutil.process_iter(["cmdline"]):
        try:
            if os.getsid(process.pid) != os.getsid(0):
                continue
        except OSError:
            continue
        words = [Path(word).name for word in (process.info["cmdline"] or [])[:4]]
        for name in _DAEMONS:
            if name in words:
                found[process.pid] = name
    return found


def watch(daemons: dict[int, str]) -> int:
    """Wait until a daemon ends; say which. Reaps whatever we adopted."""
    from cluster.processes import identify

    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        for pid, name in daemons.items():
            if identify(pid) is None:
                sys.stderr.write(f"ray_head: {name} (pid {pid}) ended; ending this head\n")
                return 1
        time.sleep(0.25)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
