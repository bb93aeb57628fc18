"""Both contexts held to the protocol's contract, and what only the folder does."""

import json
import os
import sys

import pytest
import torch

from workloads.worker.context import MemoryContext
from workloads.worker.failures import FencedError, StorageFullError
from workloads.worker.folder_context import FolderContext
from workloads.worker.lines import say
from workloads.worker.records import Progress, TrainResult
from workloads.worker.spool import read_committed

PROGRESS = Progress("train", 1, 2, 1, 10, 1, 20, loss=0.5)
RESULT = TrainResult(2, 20, False, 90.0, 2, 90.0, 99.0, 0.1, 30, "ab", 0)


@pytest.fixture(params=["memory", "folder"])
def make(request, paths):
    if request.param == "folder":
        return lambda attempt: FolderContext(paths.root, attempt=attempt)
    memory = MemoryContext()
    return lambda attempt: memory


def test_a_state_comes_back_in_the_next_attempt(make, make_state):
    context = make(1)
    assert context.load_checkpoint() is None
    context.log_metrics(5, {"train/step_loss": 1.0}, at=5)
    context.save_checkpoint(make_state(5), step=5, is_best=True)
    state = make(2).load_checkpoint()
    assert state["step"] == 5
    assert torch.equal(state["weights"], make_state(5)["weights"])


def test_a_saved_state_is_a_copy(make):
    weights = torch.zeros(3)
    context = make(1)
    context.load_checkpoint()
    context.save_checkpoint({"step": 1, "w": weights}, step=1, is_best=False)
    weights += 1
    assert make(2).load_checkpoint()["w"].sum() == 0


def test_objects_are_no_state(make):
    context = make(1)
    context.load_checkpoint()
    with pytest.raises(Exception, match="Weights only load failed"):
        context.save_checkpoint({"step": 1, "x": PROGRESS}, step=1, is_best=False)
    assert make(2).load_checkpoint() is None


def test_nobody_asked_to_stop(make):
    assert not make(1).should_stop()


def test_the_files(paths, make_state):
    context = FolderContext(paths.root, attempt=3)
    context.load_checkpoint()
    assert json.loads(paths.owner.read_bytes())["attempt"] == 3
    context.report_progress(PROGRESS)
    assert json.loads(paths.first_step.read_bytes())["attempt"] == 3
    assert json.loads(paths.progress.read_bytes())["loss"] == 0.5
    context.log_metrics(1, {"val/top1": 50.0}, at=5)
    assert read_committed(paths.spool, 0)[0] == []
    context.save_checkpoint(make_state(5), step=5, is_best=False)
    (row,), _ = read_committed(paths.spool, 0)
    assert (row.step, row.at, row.metrics) == (1, 5, {"val/top1": 50.0})
    context.finish(RESULT)
    assert json.loads(paths.result.read_bytes())["best_top1"] == 90.0


def test_every_report_is_shown(paths):
    """How often is decided once, by who reports."""
    context = FolderContext(paths.root)
    for step in range(3):
        context.report_progress(Progress("train", 1, 2, step, 100, step, 200))
        assert json.loads(paths.progress.read_bytes())["step"] == step


@pytest.mark.parametrize("kind", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("at", [1, 2])
def test_progress_that_cannot_be_written_ends_nothing(kind, at, paths, faults):
    context = FolderContext(paths.root)
    with faults(kind, at).installed() as fault:
        context.report_progress(PROGRESS)
        assert fault.count >= at
    context.report_progress(PROGRESS)
    assert json.loads(paths.first_step.read_bytes())["attempt"] == 1
    assert paths.progress.exists()


def test_a_log_that_cannot_be_written_ends_nothing(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        say("hello")
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space"):
            full.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


@pytest.mark.parametrize("step", ["claim", "load", "finish"])
def test_a_full_disk_besides_a_save_is_the_same_clear_error(step, paths, faults):
    """Fail each operation of a step in turn; those that need room must say so."""
    told = []
    for at in range(1, 30):
        context = None if step == "claim" else FolderContext(paths.root, attempt=at)
        if step == "finish":
            context.load_checkpoint()
        with faults("ENOSPC", at).installed() as fault:
            try:
                if step == "claim":
                    FolderContext(paths.root, attempt=at)
                elif step == "load":
                    context.load_checkpoint()
                else:
                    context.finish(RESULT)
            except StorageFullError as error:
                told.append(f"gcpctl retry {paths.job_id}" in str(error))
                continue
        assert not fault.raised
        if fault.count < at:
            break
    assert all(told)
    assert told


def test_the_stop_file_is_seen(paths, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("workloads.worker.folder_context.time.monotonic", lambda: now[0])
    context = FolderContext(paths.root)
    assert not context.should_stop()
    paths.stop.touch()
    assert not context.should_stop()  # polled a moment ago
    now[0] += 0.2
    assert context.should_stop()


def test_a_zombie_hears_it_was_replaced(paths, make_state, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("workloads.worker.folder_context.time.monotonic", lambda: now[0])
    zombie = FolderContext(paths.root, attempt=1)
    zombie.load_checkpoint()
    assert not zombie.should_stop()
    FolderContext(paths.root, attempt=2)
    now[0] += 2.0
    with pytest.raises(FencedError):
        zombie.should_stop()
    with pytest.raises(FencedError):
        zombie.save_checkpoint(make_state(1), step=1, is_best=False)
    with pytest.raises(FencedError):
        zombie.finish(RESULT)
    assert not paths.result.exists()


def test_other_ranks_write_nothing(paths, make_state):
    context = FolderContext(paths.root, rank=1, world_size=2, local_rank=1)
    context.log_metrics(1, {"a": 1.0}, at=1)
    context.report_progress(PROGRESS)
    context.save_checkpoint(make_state(1), step=1, is_best=True)
    context.finish(RESULT)
    assert not paths.root.exists()


@pytest.mark.parametrize("at", range(1, 12))
def test_a_full_disk_anywhere_in_a_save_is_one_clear_error(at, paths, faults, make_state):
    context = FolderContext(paths.root)
    context.load_checkpoint()
    context.log_metrics(5, {"a": 1.0}, at=5)
    context.save_checkpoint(make_state(5), step=5, is_best=False)
    context.log_metrics(6, {"a": 2.0}, at=6)
    error = None
    with faults("ENOSPC", at).installed() as fault:
        try:
            context.save_checkpoint(make_state(6), step=6, is_best=False)
        except StorageFullError as full:
            error = full
    assert (error is not None) == fault.raised
    again = FolderContext(paths.root, attempt=2)
    step = again.load_checkpoint()["step"]
    if step == 5:
        again.log_metrics(6, {"a": 2.0}, at=6)
    again.save_checkpoint(make_state(7), step=7, is_best=False)
    assert [r.at for r in read_committed(paths.spool, 0)[0]] == [5, 6]
