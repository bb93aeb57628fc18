"""Processes by identity and by marker: find ours, end ours, touch nobody else's.

Everything this package starts carries `GCPCTL_CLUSTER_ID` in its environment, and so do all
descendants. Ray renames its processes, which would wipe that environment from view; the head
is started with `SPT_NOENV=1`, which tells the renaming code to leave it alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

MARKER = "GCPCTL_CLUSTER_ID"
SERVICE = "GCPCTL_SERVICE"


@dataclass(frozen=True)
class Identity:
    """A process that cannot be confused with a later one of the same pid.

    Attributes:
        pid: The process id.
        born: Clock ticks since boot on Linux, where wall-clock changes must not matter;
            psutil's creation time elsewhere.
    """

    pid: int
    born: float


def identify(pid: int) -> Identity | None:
    """Return the identity of a living process; None for a dead one or a zombie."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        fields = stat[stat.rindex(")") + 2 :].split()  # the name before may hold anything
        return None if fields[0] in "ZX" else Identity(pid, float(fields[19]))
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return Identity(pid, process.create_time())
    except psutil.Error:
        return None


def is_alive(identity: Identity | None) -> bool:
    """Tell whether exactly this process still runs."""
    return identity is not None and identify(identity.pid) == identity


def find_marked(cluster_id: str, services: Sequence[str] | None = None) -> list[psutil.Process]:
    """Return the living processes that carry this cluster's marker.

    Args:
        cluster_id: The id the home was given.
        services: Only processes of these services; None means all.
    """
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            if environment.get(MARKER) != cluster_id:
                continue
            if services is not None and environment.get(SERVICE) not in services:
                continue
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_marked(
    cluster_id: str,
    services: Sequence[str] | None = None,
    grace_s: float = 3.0,
    at_once: Sequence[str] = (),
) -> int:
    """End all marked processes: SIGTERM, a grace, then SIGKILL until none is left.

    Args:
        cluster_id: The id the home was given.
        services: Only processes of these services; None means all.
        grace_s: Time between SIGTERM and SIGKILL.
        at_once: A process whose command contains one of these gets SIGKILL without SIGTERM.

    Returns:
        How many processes there were.
    """
    seen: set[int] = set()
    for signal_number, patience_s in [
        (signal.SIGTERM, grace_s),
        *[(signal.SIGKILL, 2.0)] * 5,  # again, for what was started meanwhile
    ]:
        found = find_marked(cluster_id, services)
        if not found:
            break
        seen.update(process.pid for process in found)
        doomed = [process for process in found if _mentions(process, at_once)]
        _send(doomed, signal.SIGKILL)
        _send([process for process in found if process not in doomed], signal_number)
        _wait_gone(found, patience_s)
    return len(seen)


def _mentions(process: psutil.Process, texts: Sequence[str]) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        command = " ".join(process.cmdline()) if texts else ""
        return any(text in command for text in texts)
    return False


def _send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            process.send_signal(number)  # psutil refuses when the pid was reused


def _wait_gone(processes: Sequence[psutil.Process], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if not any(identify(process.pid) and process.is_running() for process in processes):
            return
        time.sleep(0.05)


def memory_mib(processes: Iterable[psutil.Process]) -> tuple[float, float]:
    """Return (RSS, PSS) in MiB; PSS counts shared pages once and is 0 where unknown."""
    rss = pss = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            info = process.memory_full_info()
            rss += info.rss
            pss += getattr(info, "pss", 0)
    return rss / 2**20, pss / 2**20
