"""Crashes, full disks, damage, fences and retention, on real files."""

import errno
import hashlib
import json
import os
import random
import shutil
import threading
import zipfile

import pytest
import torch

from workloads import durable
from workloads.worker.checkpoint_reader import open_checkpoint, verified
from workloads.worker.checkpoints import CheckpointStore
from workloads.worker.failures import CheckpointError, FencedError, StorageFullError
from workloads.worker.manifest import Manifest, read_manifest

KINDS = ["crash before", "crash half", "crash after", "ENOSPC", "EIO"]


def save(store, make_state, *steps, best=()):
    for step in steps:
        store.save(make_state(step), step=step, is_best=step in best)


def assert_loads(store, *steps):
    state = store.load_latest()
    assert state is not None
    assert state["step"] in steps
    assert torch.equal(state["weights"], torch.full((64,), float(state["step"])))


def test_the_manifest_names_the_classes_of_the_state(paths, make_state):
    store = CheckpointStore(paths, 1, 2)
    store.claim()
    store.save(make_state(1), step=1, is_best=False)
    named = {**make_state(2), "identity": {"classes": ["ant", "bee \udcff"]}}
    store.save(named, step=2, is_best=False)
    said = [read_manifest(paths.checkpoints / f"step-{step:010d}").classes for step in (1, 2)]
    assert said == [None, ("ant", "bee \udcff")]
    assert store.load_latest()["identity"] == named["identity"]


def test_nothing_saved_loads_nothing(make_store):
    assert make_store().load_latest() is None
    assert make_store().loaded_from is None


def test_save_and_load(paths, make_store, make_state):
    store = make_store()
    save(store, make_state, 10, 20, best=(10,))
    assert_loads(make_store(2), 20)
    assert open_checkpoint(paths.root, "best")["step"] == 10


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_any_operation_leaves_a_good_checkpoint(
    kind, paths, make_store, make_state, faults, in_child, capfd
):
    """The loop of SQLite: fail the first operation, then the second, until all go through."""

    def attempt_1():
        save(CheckpointStore(paths, 1, 2), make_state, 30, best=(30,))

    points = 0
    for at in range(1, 200):
        shutil.rmtree(paths.root, ignore_errors=True)
        save(make_store(), make_state, 10, 20, best=(10,))
        with faults(kind, at).installed() as fault:
            status = in_child(attempt_1)
            fault.at = 0
        if status == 0 and kind.startswith("crash"):
            break
        if status == 0 and at > points + 15:
            break
        if status != 0:
            points = at
        resumed = make_store(2)
        assert_loads(resumed, 20, 30)
        # The next attempt goes on: nothing is left over, the step can be saved again.
        save(resumed, make_state, 30, 40, best=(30, 40))
        assert_loads(make_store(3), 40)
        assert open_checkpoint(paths.root, "best")["step"] == 40
        assert {p.name for p in paths.checkpoints.iterdir()} == {
            "step-0000000030",
            "step-0000000040",
            "best.json",
        }
    assert points >= 10


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_fault_while_a_checkpoint_is_replaced_leaves_one(
    kind, paths, make_store, make_state, faults, in_child
):
    for at in range(1, 200):
        shutil.rmtree(paths.root, ignore_errors=True)
        save(make_store(), make_state, 20)
        with faults(kind, at).installed():
            status = in_child(lambda: save(CheckpointStore(paths, 1, 2), make_state, 20))
        assert_loads(make_store(2), 20)
        if status == 0:
            break
    assert at > 10


def test_power_loss_keeps_a_good_checkpoint(paths, make_store, make_state, monkeypatch):
    """What was not synced is lost: a file's bytes, a folder's renames."""

    class PowerLossError(OSError):
        pass

    class Device:
        """Remembers what is not on the device yet, and takes it back at the power loss."""

        def __init__(self, at: int) -> None:
            self.at, self.count = at, 0
            self.unsynced: dict[str, tuple[int, int]] = {}
            self.renames: list[tuple] = []

        def tick(self) -> None:
            self.count += 1
            if self.count == self.at:
                self.lose()
                raise PowerLossError

        def lose(self) -> None:
            for source, target in reversed(self.renames):
                os.rename(target, source)
            for descriptor, size in self.unsynced.values():
                os.ftruncate(descriptor, size)

        def write(self, handle, data) -> None:
            self.tick()
            if handle.name not in self.unsynced:
                size = os.fstat(handle.fileno()).st_size
                self.unsynced[handle.name] = (os.dup(handle.fileno()), size)
            handle.write(data)

        def sync(self, handle) -> None:
            self.tick()
            handle.flush()
            descriptor, _ = self.unsynced.pop(handle.name)
            os.close(descriptor)

        def sync_folder(self, path) -> None:
            self.tick()
            self.renames = [(s, t) for s, t in self.renames if t.parent != path]

        def move(self, source, target) -> None:
            self.tick()
            if not target.is_file():  # a replaced file cannot be brought back by a rename
                self.renames.append((source, target))
            os.replace(source, target)

    for at in range(1, 100):
        shutil.rmtree(paths.root, ignore_errors=True)
        store = make_store()
        save(store, make_state, 10, 20)
        device = Device(at)
        with monkeypatch.context() as patch:
            for name in ("write", "sync", "sync_folder", "move"):
                patch.setattr(durable, name, getattr(device, name))
            # A machine without power tidies nothing.
            patch.setattr(durable, "remove_tree", lambda path: None)
            try:
                save(store, make_state, 30)
            except PowerLossError:
                pass
            else:
                device.lose()
                break
        assert_loads(make_store(2), 20, 30)
    assert_loads(make_store(2), 30)  # after a save that returned, all of it is there
    assert at > 8


def test_full_disk_says_what_to_do_and_keeps_the_old(make_store, make_state, faults, paths):
    store = make_store()
    save(store, make_state, 10)
    with faults("ENOSPC", 3).installed(), pytest.raises(StorageFullError) as info:
        save(store, make_state, 20)
    assert f"then: gcpctl retry {paths.job_id}" in str(info.value)
    assert "MiB free" in str(info.value)
    assert [p.name for p in paths.checkpoints.iterdir()] == ["step-0000000010"]
    save(store, make_state, 20)
    assert_loads(store, 20)


def test_another_error_of_the_disk_stays_itself(make_store, make_state, faults):
    store = make_store()
    with faults("EIO", 3).installed(), pytest.raises(OSError, match="Input/output") as info:
        save(store, make_state, 20)
    assert info.value.errno == errno.EIO


def mutate(folder, kind, rng):
    state, manifest = folder / "state.pt", folder / "MANIFEST.json"
    target = rng.choice([state, manifest])
    data = bytearray(target.read_bytes())
    if kind == "truncate":
        del data[rng.randrange(len(data)) :]
    elif kind == "bit flip":
        data[rng.randrange(len(data) - 1)] ^= 1 << rng.randrange(8)
    elif kind == "zeros":
        start = rng.randrange(len(data) - 8)
        data[start : start + 64] = bytes(len(data[start : start + 64]))
    elif kind == "missing":
        target.unlink()
        return
    elif kind == "swapped":
        other = folder.with_name("step-0000000010") / target.name
        data = bytearray(other.read_bytes())
    elif kind == "foreign":
        target = manifest
        data = bytearray(json.dumps({"format": "other", "version": 1, "step": 20}).encode())
    target.write_bytes(data)


@pytest.mark.parametrize("kind", ["truncate", "bit flip", "zeros", "missing", "swapped", "foreign"])
def test_damage_is_found_and_the_older_one_used(kind, paths, make_store, make_state, capsys):
    newest = paths.checkpoints / "step-0000000020"
    save(make_store(), make_state, 10, 20)
    kept = paths.root.with_name("kept")
    shutil.copytree(paths.root, kept)
    changed = 0
    for seed in range(35):
        shutil.rmtree(paths.root)
        shutil.copytree(kept, paths.root)
        before = {p.name: p.read_bytes() for p in newest.iterdir()}
        mutate(newest, kind, random.Random(seed))
        if before == {p.name: p.read_bytes() for p in newest.iterdir()}:
            continue  # zeros over zeros
        changed += 1
        assert_loads(make_store(2), 10)
        assert not newest.exists()
        assert "is damaged" in capsys.readouterr().out
        assert list(paths.checkpoints.glob("step-0000000020.bad-2-*"))
    assert changed >= 30


def test_all_damaged_is_said_rather_than_begun_anew(paths, make_store, make_state):
    save(make_store(), make_state, 10, 20)
    for folder in paths.checkpoints.glob("step-*"):
        (folder / "state.pt").write_bytes(b"")
    for attempt in (2, 3):
        with pytest.raises(CheckpointError, match=r"damaged: step-0000000010.bad-2-1, step-.*copy"):
            make_store(attempt).load_latest()


@pytest.mark.parametrize(
    "failure", [MemoryError(), OSError(errno.EIO, "io"), OSError(errno.ESTALE, "stale")], ids=repr
)
def test_a_passing_error_throws_no_checkpoint_away(
    failure, paths, make_store, make_state, monkeypatch
):
    save(make_store(), make_state, 10, 20)
    again = make_store(2)

    def fail(*arguments, **options):
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", fail)
        with pytest.raises(type(failure)) as info:
            again.load_latest()
    assert info.value is failure
    assert_loads(again, 20)
    assert not list(paths.checkpoints.glob("*.bad-*"))


def test_an_archive_of_another_kind_is_set_aside(paths, make_store, make_state):
    store = make_store()
    save(store, make_state, 10, 20)
    folder = paths.checkpoints / "step-0000000020"
    with zipfile.ZipFile(folder / "state.pt", "w") as archive:
        archive.writestr("a/b", "c")
    data = (folder / "state.pt").read_bytes()
    manifest = Manifest(20, 1, False, len(data), hashlib.sha256(data).hexdigest())
    (folder / "MANIFEST.json").write_bytes(manifest.to_json())
    assert_loads(store, 10)


def test_a_newer_format_is_refused_not_skipped(paths, make_store, make_state, monkeypatch):
    save(make_store(), make_state, 10)
    with monkeypatch.context() as patch:
        patch.setattr("workloads.worker.manifest.VERSION", 2)
        save(make_store(), make_state, 20)
    with pytest.raises(CheckpointError, match="format 2, this gcpctl reads format 1"):
        make_store(2).load_latest()
    assert (paths.checkpoints / "step-0000000020").exists()


def test_a_pickle_with_code_is_never_run(paths, make_store, make_state, tmp_path):
    store = make_store()
    save(store, make_state, 10, 20)

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    folder = paths.checkpoints / "step-0000000020"
    torch.save({"step": 20, "x": Hostile()}, folder / "state.pt")
    data = (folder / "state.pt").read_bytes()
    manifest = Manifest(20, 1, False, len(data), hashlib.sha256(data).hexdigest())
    (folder / "MANIFEST.json").write_bytes(manifest.to_json())
    assert_loads(store, 10)
    assert not (tmp_path / "canary").exists()


def test_the_best_pointer_is_mended_after_a_crash(paths, make_store, make_state):
    store = make_store()
    save(store, make_state, 10, 20, best=(10, 20))
    paths.best.unlink()  # the crash came between the checkpoint and its pointer
    assert_loads(make_store(2), 20)
    assert open_checkpoint(paths.root, "best")["step"] == 20


def test_the_best_is_found_while_it_is_replaced(paths, make_store, make_state):
    store = make_store()
    save(store, make_state, 10, best=(10,))
    folder = paths.checkpoints / "step-0000000010"
    folder.rename(folder.with_name("step-0000000010.old"))  # and then the crash
    assert open_checkpoint(paths.root, "best")["step"] == 10
    shutil.rmtree(folder.with_name("step-0000000010.old"))
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        open_checkpoint(paths.root, "best")


def test_a_zombie_removes_nothing(paths, make_store, make_state, monkeypatch, capsys):
    """Attempt 2 takes over right after attempt 1 committed, before that tidied up."""
    old = make_store(1)
    save(old, make_state, 10, 20)
    monkeypatch.setattr(
        "workloads.worker.checkpoints.verified", lambda folder: (make_store(2), verified(folder))[1]
    )
    save(old, make_state, 30, best=(30,))
    assert old.steps() == [10, 20, 30]
    assert not paths.best.exists()
    assert "replaced by attempt 2" in capsys.readouterr().out


def test_failing_to_prune_is_a_warning(make_store, make_state, monkeypatch, capsys):
    store = make_store()
    save(store, make_state, 10, 20, 30)

    def refuse(path):
        if path.exists():
            raise PermissionError("no")

    monkeypatch.setattr(durable, "remove_tree", refuse)
    save(store, make_state, 40)
    assert "could not tidy" in capsys.readouterr().out
    assert_loads(store, 40)


def test_an_older_attempt_cannot_claim(make_store):
    make_store(3)
    make_store(3)
    with pytest.raises(FencedError, match=r"attempt 2 of .* replaced by attempt 3"):
        make_store(2)


@pytest.mark.parametrize("at", range(1, 14))
def test_a_zombie_commits_nothing(at, paths, make_store, make_state, monkeypatch):
    """Attempt 2 takes over while attempt 1 is at any operation of a save."""
    old = make_store(1)
    save(old, make_state, 10)
    count = 0
    claimed = threading.Event()

    def take_over():
        store = CheckpointStore(paths, 2, 2)
        store.claim()
        claimed.set()

    def wrap(original):
        def operation(*arguments):
            nonlocal count
            count += 1
            if count == at and threading.current_thread() is threading.main_thread():
                thread.start()
                claimed.wait(0.3)  # in the committing section the newcomer waits for the lock
            if arguments[-1] == old.paths.checkpoints / "step-0000000020":
                assert not claimed.is_set(), "a commit after the takeover"
            original(*arguments)

        return operation

    thread = threading.Thread(target=take_over)
    with monkeypatch.context() as patch:
        for name in ("make_folder", "write", "sync", "sync_folder", "move", "remove_tree"):
            patch.setattr(durable, name, wrap(getattr(durable, name)))
        try:
            save(old, make_state, 20)
        except FencedError:
            assert old.steps() == [10]
        else:
            assert old.steps() == [10, 20]
            assert count >= at
        if thread.ident is not None:
            thread.join()
        else:
            take_over()
    with pytest.raises(FencedError):
        save(old, make_state, 30)
    assert_loads(CheckpointStore(paths, 2, 2), *old.steps()[-1:])


def test_readers_never_meet_a_gap_while_the_trainer_prunes(paths, make_store, make_state):
    store = make_store()
    save(store, make_state, 1, 2)
    done = threading.Event()
    fewest = []

    def read():
        while not done.is_set():
            fewest.append(len(CheckpointStore(paths, 1, 2).steps()))

    thread = threading.Thread(target=read)
    thread.start()
    save(store, make_state, *range(3, 60))
    done.set()
    thread.join()
    assert min(fewest) >= 2
