"""Faults under every durable operation, at the n-th one."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from workloads import durable
from workloads.worker.checkpoints import CheckpointStore
from workloads.worker.paths import JobPaths

SEAM = (
    "make_folder",
    "write",
    "sync",
    "sync_folder",
    "move",
    "remove_tree",
    "write_json_fleeting",
)
NEEDS_ROOM = ("write", "make_folder", "write_json_fleeting")
CRASHED = 137


class Faults:
    """Counts durable operations and lets the `at`-th one go wrong in a chosen way."""

    def __init__(self, kind: str = "none", at: int = 0) -> None:
        self.kind, self.at, self.count = kind, at, 0
        self.raised = False

    @contextmanager
    def installed(self) -> Iterator["Faults"]:
        """Wrap the seam."""
        originals = {name: getattr(durable, name) for name in SEAM}
        for name, original in originals.items():
            setattr(durable, name, self._wrap(name, original))
        try:
            yield self
        finally:
            for name, original in originals.items():
                setattr(durable, name, original)

    def _wrap(self, name: str, original: Callable[..., None]) -> Callable[..., None]:
        def operation(*arguments: Any) -> None:
            self.count += 1
            if self.count == self.at:
                self._go_wrong(name, original, arguments)
            original(*arguments)

        return operation

    def _go_wrong(self, name: str, original: Callable[..., None], arguments: tuple) -> None:
        if self.kind == "crash before":
            os._exit(CRASHED)
        if self.kind == "crash after":
            original(*arguments)
            os._exit(CRASHED)
        if name == "write" and self.kind in ("crash half", "ENOSPC"):
            handle, data = arguments
            handle.write(bytes(data)[: len(data) // 2])
            handle.flush()
        if self.kind == "crash half":
            os._exit(CRASHED)
        # A full disk still lets files be removed and synced.
        if self.kind == "EIO" or (self.kind == "ENOSPC" and name in NEEDS_ROOM):
            self.raised = True
            raise OSError(getattr(errno, self.kind), os.strerror(getattr(errno, self.kind)))


@pytest.fixture(autouse=True)
def quick_device(monkeypatch):
    """Spare the waits for the device: what a process wrote stays when it crashes.

    The test of a power loss takes back by itself what was not synced.
    """
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def faults() -> type[Faults]:
    return Faults


@pytest.fixture
def in_child() -> Callable[[Callable[[], None]], int]:
    """Run an action in a forked child and return its exit status; 1 for an exception."""

    def run(action: Callable[[], None]) -> int:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                action()
                code = 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return run


@pytest.fixture
def paths(tmp_path: Path) -> JobPaths:
    return JobPaths(tmp_path / "it's a job ü")


@pytest.fixture
def make_store(paths: JobPaths) -> Callable[..., CheckpointStore]:
    def make(attempt: int = 1, keep: int = 2) -> CheckpointStore:
        store = CheckpointStore(paths, attempt, keep)
        store.claim()
        return store

    return make


@pytest.fixture
def make_state() -> Callable[[int], dict[str, Any]]:
    def make(step: int) -> dict[str, Any]:
        return {"step": step, "weights": torch.full((64,), float(step)), "names": ["a", "b"]}

    return make
