"""A training killed at any durable operation, or anywhere at all, ends with the same numbers."""

import json
import os
import signal
import time

import pytest

from workloads import durable
from workloads.training.loop import train
from workloads.worker.context import MemoryContext
from workloads.worker.folder_context import FolderContext
from workloads.worker.paths import JobPaths
from workloads.worker.spool import read_committed

SEAM = ("make_folder", "write", "sync", "sync_folder", "move", "remove_tree")


def in_child(action):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return pid


def crash_at(at):
    """Die before the `at`-th durable operation."""
    count = 0

    def wrap(original):
        def operation(*arguments):
            nonlocal count
            count += 1
            if count == at:
                os._exit(137)
            original(*arguments)

        return operation

    for name in SEAM:
        setattr(durable, name, wrap(getattr(durable, name)))


@pytest.fixture
def config(tiny):
    return tiny(checkpoint={"every_steps": 4})


@pytest.fixture
def whole(config, with_dropout, hex_of):
    context = MemoryContext()
    return train(config, context), hex_of(context.metrics)


def assert_same(paths, whole, hex_of):
    result, metrics = whole
    assert json.loads(paths.result.read_bytes())["weights_sha256"] == result.weights_sha256
    rows, _ = read_committed(paths.spool, 0)
    assert hex_of([(row.step, row.at, row.metrics) for row in rows]) == metrics


@pytest.mark.parametrize("first", [1, 5])
def test_a_crash_at_a_durable_operation(first, config, whole, hex_of, tmp_path):
    """Every attempt gets further before it dies, until one comes through."""
    paths = JobPaths(tmp_path / "job")
    at, attempt, status = first, 0, None
    while status != 0:
        attempt += 1

        def action(at=at, attempt=attempt):
            crash_at(at)
            train(config, FolderContext(paths.root, attempt=attempt))

        status = os.waitstatus_to_exitcode(os.waitpid(in_child(action), 0)[1])
        assert status in (0, 137)
        at += 8
    assert attempt > 4
    assert_same(paths, whole, hex_of)


def test_kills_anywhere(config, whole, hex_of, tmp_path):
    """Kills after a step seen in the progress; then nobody disturbs."""
    paths = JobPaths(tmp_path / "job")
    for attempt in range(1, 9):
        pid = in_child(lambda n=attempt: train(config, FolderContext(paths.root, attempt=n)))
        deadline_s = time.monotonic() + 20
        while not paths.first_step.exists() and time.monotonic() < deadline_s:
            os.sched_yield()
        paths.first_step.unlink(missing_ok=True)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    train(config, FolderContext(paths.root, attempt=9))
    assert_same(paths, whole, hex_of)
