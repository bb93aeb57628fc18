"""The controller process: call `step` for ever, at once when somebody submits.

python -m orchestrator.controller.loop --profile-home HOME
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from cluster.profiles import ClusterError, Profile, load_profile
from orchestrator.controller.archive import log_archiver
from orchestrator.controller.reconcile import step
from orchestrator.controller.waited_for import WaitedFor
from orchestrator.jobs.errors import GcpctlError, UnreachableError
from orchestrator.jobs.ray_jobs import RayJobs
from orchestrator.jobs.store import JobStore, now_ms

_log = logging.getLogger("gcpctl.controller")

_BUSY_INTERVAL_S = 0.5
"""Between steps while a job is active."""
_IDLE_INTERVAL_S = 2.0
"""Between steps while none is; a nudge ends the pause."""
_NUDGE_POLL_S = 0.05
_HEARTBEAT_S = 2.0
_HUNG_STEP_S = 180.0
"""A step that takes longer hangs; the heartbeat stops and the process is replaced."""


class Nudge:
    """A file that others touch to have the next step made at once."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen = self._stamp()

    def _stamp(self) -> int:
        try:
            return self._path.stat().st_mtime_ns if self._path else 0
        except OSError:
            return 0

    def wait(self, seconds: float) -> None:
        """Sleep for `seconds`, or until somebody nudges."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                return
            time.sleep(_NUDGE_POLL_S)


class Heartbeat(threading.Thread):
    """Touches a file while steps go on being made, also during one that waits for a server."""

    def __init__(self, path: Path | None) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._path = path
        self._last_step = time.monotonic()

    def step_begins(self) -> None:
        """Tell that the loop has come round."""
        self._last_step = time.monotonic()

    def run(self) -> None:
        """Touch the file until the loop hangs."""
        while self._path is not None:
            if time.monotonic() - self._last_step < _HUNG_STEP_S:
                with contextlib.suppress(OSError):
                    self._path.touch()
            time.sleep(_HEARTBEAT_S)


def run(home: Path | None) -> None:
    """Reconcile until the process is told to end."""
    beat = Heartbeat(home / "cluster" / "controller.heartbeat" if home else None)
    beat.start()
    profile: Profile | None = None
    nudge = Nudge(None)
    waited_for = WaitedFor()
    while True:
        beat.step_begins()
        busy = False
        try:
            current = load_profile()
            if current is not None and current != profile:
                store, ray = JobStore.of(current), RayJobs.of(current)
                archive = log_archiver(store, ray, current.ray_log_root)
                nudge = Nudge(current.nudge_path)
                waited_for = WaitedFor()
                profile = current  # last: all of it is there, or none
                _log.info("reconciling %s and %s", profile.mlflow_url, profile.ray_url)
            if profile is not None:
                report = step(store, ray, archive, now_ms(), waited_for)
                busy = report.active > 0
                for event in report.events:
                    _log.info("%s", event)
        except UnreachableError as exc:
            _log.warning("%s; nothing is concluded from that", exc.message)
        except (GcpctlError, ClusterError) as exc:
            _log.error("%s", exc.message)
        except Exception:
            _log.exception("a step failed; the next one starts afresh")
        nudge.wait(_BUSY_INTERVAL_S if busy else _IDLE_INTERVAL_S)


def _end(signum: int, _frame: FrameType | None) -> None:
    _log.info("ending on signal %d; jobs run on", signum)
    sys.exit(0)


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description="Move gcpctl's jobs on one cluster.")
    parser.add_argument("--profile-home", type=Path, default=None)
    home = parser.parse_args().profile_home
    if home is not None:
        os.environ["GCPCTL_HOME"] = str(home)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    run(home)


if __name__ == "__main__":
    main()
