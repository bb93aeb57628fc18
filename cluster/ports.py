"""Loopback ports: chosen by the system once, kept over restarts."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Mapping

LOOPBACK = "127.0.0.1"
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


def renew_ports(service: str, ports: Mapping[str, int], pinned: Iterable[str]) -> dict[str, int]:
    """Return `ports` with those of a dead service that others took replaced.

    A pinned port was asked for by a person and stays; its service then says that it is taken.
    """
    taken = [n for n in PORTS_OF[service] if n not in set(pinned) and not is_free(ports[n])]
    return {**ports, **choose_ports(taken)}
