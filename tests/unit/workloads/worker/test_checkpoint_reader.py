"""Checkpoints opened by others than the training: nothing changes on the disk."""

import json
import shutil
import threading

import pytest
import torch

from workloads.worker import checkpoint_reader
from workloads.worker.checkpoint_reader import open_checkpoint
from workloads.worker.failures import CheckpointError


@pytest.fixture
def job(paths, make_store, make_state):
    """Checkpoints of steps 10 (the best), 30 and 40."""
    store = make_store()
    for step in (10, 20, 30, 40):
        store.save(make_state(step), step=step, is_best=step == 10, score=-step)
    return paths.root


def listing(root):
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in root.rglob("*")
    }


@pytest.mark.parametrize(("which", "step"), [("last", 40), ("best", 10), (30, 30)])
def test_a_job_or_its_checkpoints_are_opened(which, step, job, paths, make_state):
    before = listing(job)
    for folder in (job, paths.checkpoints):
        state = open_checkpoint(folder, which)
        assert state["step"] == step
        assert torch.equal(state["weights"], make_state(step)["weights"])
    assert listing(job) == before


def test_one_checkpoint_is_opened_under_any_name(job, paths, tmp_path):
    shutil.copytree(paths.checkpoints / "step-0000000030", tmp_path / "mine")
    assert open_checkpoint(tmp_path / "mine")["step"] == 30
    assert open_checkpoint(paths.checkpoints / "step-0000000040")["step"] == 40


def test_a_reader_needs_no_right_to_write(job, in_child):
    """Neither ownership nor a lock is taken."""
    (job / "OWNER").unlink()
    (job / "OWNER.lock").unlink(missing_ok=True)
    open_checkpoint(job, "best")
    assert not (job / "OWNER").exists()
    assert not (job / "OWNER.lock").exists()


def test_the_best_is_known_before_its_pointer(job, paths):
    paths.best.unlink()
    assert open_checkpoint(job, "best")["step"] == 10


def test_damage_is_told_and_left_as_it_is(job, paths):
    file = paths.checkpoints / "step-0000000040" / "state.pt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    before = listing(job)
    with pytest.raises(
        CheckpointError, match=r"step-0000000040 cannot be used: .*others, of step 10, 30"
    ):
        open_checkpoint(job)
    assert listing(job) == before
    assert open_checkpoint(job, 30)["step"] == 30


def test_what_is_missing_is_told(job, paths, tmp_path, make_store):
    with pytest.raises(CheckpointError, match=r"no folder .*nowhere"):
        open_checkpoint(tmp_path / "nowhere")
    (tmp_path / "new" / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"has no checkpoint yet; a job saves"):
        open_checkpoint(tmp_path / "new")
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 20; there are: 10, 30, 40"):
        open_checkpoint(job, 20)
    (paths.checkpoints / "step-0000000040" / "MANIFEST.json").unlink()
    with pytest.raises(CheckpointError, match=r"000040 cannot be used: MANIFEST.json is missing"):
        open_checkpoint(paths.checkpoints / "step-0000000040")
    for folder in paths.checkpoints.glob("step-*"):
        folder.rename(folder.with_name(f"{folder.name}.bad-1-1"))
    with pytest.raises(CheckpointError, match=r"can be used; damaged: step-0000000010.bad-1-1, "):
        open_checkpoint(job)


def test_no_validation_yet_is_told(paths, make_store, make_state):
    make_store().save(make_state(5), step=5, is_best=False)
    with pytest.raises(CheckpointError, match=r"has a validation result yet; ask"):
        open_checkpoint(paths.root, "best")


def test_other_programs_and_newer_formats_are_told(job, paths, make_store, make_state, monkeypatch):
    manifest = paths.checkpoints / "step-0000000030" / "MANIFEST.json"
    manifest.write_text(json.dumps({"format": "other", "version": 1, "step": 30}))
    with pytest.raises(CheckpointError, match=r"cannot be used: .*of another program"):
        open_checkpoint(job, 30)
    with monkeypatch.context() as patch:
        patch.setattr("workloads.worker.manifest.VERSION", 2)
        make_store(2).save(make_state(50), step=50, is_best=False)
    with pytest.raises(CheckpointError, match=r"format 2, this gcpctl reads format 1"):
        open_checkpoint(job)


def test_a_checkpoint_pruned_under_the_hands_is_replaced_by_the_next(
    job, make_store, make_state, monkeypatch
):
    """The training saves twice between the choice and the reading."""
    store, verify = make_store(2), checkpoint_reader.verified
    steps = iter((50, 60))

    def late(folder):
        for step in steps:
            store.save(make_state(step), step=step, is_best=False)
        return verify(folder)

    monkeypatch.setattr(checkpoint_reader, "verified", late)
    assert open_checkpoint(job)["step"] == 60


def test_readers_beside_a_training_always_get_a_whole_state(job, make_store, make_state):
    store, done, seen, failures = make_store(2), threading.Event(), [], []

    def read():
        while not done.is_set():
            try:
                state = open_checkpoint(job)
                assert torch.equal(state["weights"], make_state(state["step"])["weights"])
                seen.append(state["step"])
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for step in range(41, 90):
        store.save(make_state(step), step=step, is_best=False)
    done.set()
    thread.join()
    assert not failures
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
