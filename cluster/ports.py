"""Loopback ports: chosen by the system once, kept over restarts."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable, Mapping

LOOPBACK = "127.0.0.1"
_LOOK_EVERY_S = 0.1
PORTS_OF = {
    "mlflow": ("mlflow",),
    "ray": (
        "gcs",
        "dashboard",
        "agent",
        "agent_grpc",
        "runtime_env",
        "metrics",
        "node_manager",
        "object_manager",
    ),
    "controller": (),
}


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def choose_ports(names: Iterable[str]) -> dict[str, int]:
    """Return a free port per name; all are held at once, so no two are equal."""
    with contextlib.ExitStack() as held:
        chosen = {}
        for name in names:
            probe = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.bind((LOOPBACK, 0))
            chosen[name] = int(probe.getsockname()[1])
    return chosen


def renew_ports(
    service: str, ports: Mapping[str, int], pinned: Iterable[str], *, patience_s: float = 0.0
) -> dict[str, int]:
    """Return `ports` with those of a dead service that others took replaced.

    A pinned port was asked for by a person and stays; its service then says that it is taken.

    Args:
        patience_s: Seconds to wait for a port that is taken. Whoever talks to the service knows
            the old one, and what holds it may be no more than a connection: a client that tries a
            dead port of the system's own range can be given that very port, and meets itself.
    """
    names = [name for name in PORTS_OF[service] if name not in set(pinned)]
    deadline = time.monotonic() + patience_s
    while taken := [name for name in names if not is_free(ports[name])]:
        if time.monotonic() >= deadline:
            break
        time.sleep(_LOOK_EVERY_S)
    return {**ports, **choose_ports(taken)}
