"""Checkpoints written beside the training: the same promises as without."""

import contextlib
import json
import os
import shutil
import threading
import time

import pytest
import torch

from workloads import durable
from workloads.worker.failures import CheckpointError, FencedError, StorageFullError
from workloads.worker.folder_context import FolderContext
from workloads.worker.records import TrainResult
from workloads.worker.spool import read_committed

RESULT = TrainResult(2, 20, False, 90.0, 2, 90.0, 99.0, 0.1, 30, "ab", 0)


def committed(paths):
    return [row.at for row in read_committed(paths.spool, 0)[0]]


@pytest.fixture
def make(paths):
    def make(attempt=1):
        context = FolderContext(paths.root, attempt=attempt, asynchronous=True)
        context.load_checkpoint()
        return context

    return make


class Gate:
    """Holds every write at the moment where its checkpoint would become complete."""

    def __init__(self, monkeypatch):
        self.open, self.reached = threading.Event(), threading.Event()
        move = durable.move

        def held(source, target):
            if target.name.startswith("step-"):
                self.reached.set()
                assert self.open.wait(20)
            move(source, target)

        monkeypatch.setattr(durable, "move", held)


@pytest.fixture
def gate(monkeypatch):
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


def test_the_training_goes_on_while_a_state_is_written(paths, make, gate):
    context = make()
    weights = torch.full((1000,), 1.0)
    context.save_checkpoint({"w": weights, "n": [1, {"k": 2}]}, step=5, is_best=False)
    assert gate.reached.wait(20)
    weights += 1.0
    assert context.is_writing
    assert not list(paths.checkpoints.glob("step-0000000005"))
    gate.open.set()
    context.close()
    state = FolderContext(paths.root, attempt=2).load_checkpoint()
    assert state["step"] == 5
    assert state["n"] == [1, {"k": 2}]
    assert torch.equal(state["w"], torch.full((1000,), 1.0))


def test_the_next_save_waits_for_the_one_before(paths, make, make_state, gate, capsys, monkeypatch):
    monkeypatch.setattr("workloads.worker.folder_context.LONG_WAIT_S", 0.05)
    context = make()
    context.save_checkpoint(make_state(5), step=5, is_best=False)
    assert gate.reached.wait(20)
    second = threading.Thread(
        target=lambda: context.save_checkpoint(make_state(6), step=6, is_best=False)
    )
    second.start()
    second.join(0.2)
    assert second.is_alive()
    gate.open.set()
    second.join(20)
    context.finish(RESULT)
    assert context.stall_s >= 0.15
    assert "the training waited" in capsys.readouterr().out
    for step in (5, 6):
        folder = paths.checkpoints / f"step-{step:010d}"
        state = torch.load(folder / "state.pt")
        assert torch.equal(state["weights"], make_state(step)["weights"])


def test_metrics_logged_meanwhile_are_not_released(paths, make, make_state, gate):
    context = make()
    context.log_metrics(5, {"a": 5.0}, at=5)
    context.save_checkpoint(make_state(5), step=5, is_best=False)
    context.log_metrics(6, {"a": 6.0}, at=6)
    assert gate.reached.wait(20)
    context.log_metrics(7, {"a": 7.0}, at=7)
    assert committed(paths) == []
    gate.open.set()
    context.close()
    assert committed(paths) == [5]
    again = make(2)  # goes on from step 5 and makes the others again
    again.log_metrics(6, {"a": 6.0}, at=6)
    again.save_checkpoint(make_state(6), step=6, is_best=False)
    again.close()
    assert committed(paths) == [5, 6]


def test_finish_comes_after_the_last_checkpoint(paths, make, make_state, gate):
    context = make()
    context.save_checkpoint(make_state(5), step=5, is_best=False)
    assert gate.reached.wait(20)
    end = threading.Thread(target=lambda: context.finish(RESULT))
    end.start()
    end.join(0.1)
    assert not paths.result.exists()
    gate.open.set()
    end.join(20)
    assert json.loads(paths.result.read_bytes())["global_step"] == 20
    assert (paths.checkpoints / "step-0000000005").exists()


def wait_until_through(context):
    deadline_s = time.monotonic() + 20
    while context.is_writing:
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


NEXT_CALLS = {
    "save": lambda context: context.save_checkpoint({"a": 1}, step=6, is_best=False),
    "should_stop": lambda context: context.should_stop(),
    "finish": lambda context: context.finish(RESULT),
}


@pytest.mark.parametrize("call", NEXT_CALLS)
def test_a_full_disk_is_told_by_the_next_call(call, paths, make, make_state, faults):
    context = make()
    context.save_checkpoint(make_state(4), step=4, is_best=False)
    wait_until_through(context)
    with faults("ENOSPC", 3).installed():
        context.save_checkpoint(make_state(5), step=5, is_best=False)
        wait_until_through(context)
    with pytest.raises(StorageFullError, match=f"gcpctl retry {paths.job_id}"):
        NEXT_CALLS[call](context)
    assert not paths.result.exists()
    assert [folder.name for folder in paths.checkpoints.iterdir()] == ["step-0000000004"]


@pytest.mark.parametrize("call", NEXT_CALLS)
def test_a_fence_met_in_a_write_is_told_by_the_next_call(call, paths, make, make_state, gate):
    context = make()
    context.save_checkpoint(make_state(4), step=4, is_best=False)
    gate.open.set()
    wait_until_through(context)
    FolderContext(paths.root, attempt=2)
    context.save_checkpoint(make_state(5), step=5, is_best=False)
    wait_until_through(context)
    with pytest.raises(FencedError, match="replaced by attempt 2"):
        NEXT_CALLS[call](context)
    assert not (paths.checkpoints / "step-0000000005").exists()


def test_what_is_no_plain_data_is_told_by_the_next_call(make):
    context = make()
    context.save_checkpoint({"x": RESULT}, step=1, is_best=False)
    wait_until_through(context)
    with pytest.raises(CheckpointError, match="Weights only load failed"):
        context.should_stop()


def test_an_error_on_the_way_out_is_said_and_hides_no_other(
    paths, make, make_state, faults, capsys
):
    context = make()
    with faults("ENOSPC", 3).installed():
        context.save_checkpoint(make_state(5), step=5, is_best=False)
        context.close()
    assert "the last checkpoint was not saved: StorageFullError" in capsys.readouterr().out
    context.close()


def train(paths, attempt):
    """Steps 1 to 4 with a row each and a save at every second."""
    context = FolderContext(paths.root, attempt=attempt, asynchronous=True)
    with contextlib.closing(context):
        state = context.load_checkpoint()
        for step in range(1 if state is None else state["step"] + 1, 5):
            context.log_metrics(step, {"a": float(step)}, at=step)
            if step % 2 == 0:
                weights = torch.full((64,), float(step))
                context.save_checkpoint({"w": weights}, step=step, is_best=step == 2)
        context.finish(RESULT)


def assert_as_undisturbed(paths):
    assert committed(paths) == [1, 2, 3, 4]
    names = {path.name for path in paths.checkpoints.iterdir()}
    assert names == {"step-0000000002", "step-0000000004", "best.json"}
    state = FolderContext(paths.root, attempt=9).load_checkpoint()
    assert torch.equal(state["w"], torch.full((64,), 4.0))
    assert json.loads(paths.best.read_bytes()) == {"step": 2}
    assert paths.result.exists()


def test_a_crash_at_any_operation_loses_and_doubles_nothing(paths, faults, in_child):
    """Crash at the first operation, the second, and so on; the attempt after it comes through."""
    for at in range(1, 300):
        shutil.rmtree(paths.root, ignore_errors=True)
        with faults("crash half", at).installed() as fault:
            status = in_child(lambda: train(paths, 1))
            fault.at = 0
        assert status in (0, 137)
        train(paths, 2)
        assert_as_undisturbed(paths)
        if status == 0:
            break
    assert at > 30


@pytest.mark.parametrize(("kind", "told"), [("ENOSPC", StorageFullError), ("EIO", OSError)])
def test_an_error_at_any_operation_loses_and_doubles_nothing(kind, told, paths, faults):
    failed = 0
    for at in range(1, 300, 3):
        shutil.rmtree(paths.root, ignore_errors=True)
        with faults(kind, at).installed() as fault:
            try:
                train(paths, 1)
            except told:
                failed += 1
        train(paths, 2)
        assert_as_undisturbed(paths)
        if fault.count < at:
            break
    assert failed > 4


def test_an_unfinished_write_of_a_dead_attempt_is_never_loaded(paths, make, make_state, in_child):
    context = make()
    context.save_checkpoint(make_state(4), step=4, is_best=False)
    context.close()

    def killed_at_the_commit():
        durable.move = lambda source, target: os._exit(137)
        late = FolderContext(paths.root, attempt=1, asynchronous=True)
        late.load_checkpoint()
        late.save_checkpoint(make_state(5), step=5, is_best=True)
        late.close()

    assert in_child(killed_at_the_commit) != 0
    leftover = paths.checkpoints / "step-0000000005.1.tmp"
    shutil.copytree(paths.checkpoints / "step-0000000004", leftover)  # as complete as can be
    again = FolderContext(paths.root, attempt=2)
    assert again.load_checkpoint()["step"] == 4
    assert again.loaded_from == paths.checkpoints / "step-0000000004"
    assert not leftover.exists()
