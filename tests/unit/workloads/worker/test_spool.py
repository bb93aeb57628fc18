"""Each metric recorded once, whatever crashes between."""

import math
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.worker.spool import SpoolRow, SpoolWriter, read_committed


def row(at, step=None, **metrics):
    return SpoolRow(step or at, at, 1000 + at, metrics or {"train/step_loss": at / 2})


def write(path, resume_at, *ats, commit=None):
    writer = SpoolWriter.open(path, resume_at)
    for at in ats:
        writer.append(row(at))
    writer.sync(writer.take(max(ats, default=0)))
    if commit is not None:
        writer.commit(commit)
    writer.close()


def committed(path):
    return [r.at for r in read_committed(path, 0)[0]]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_no_file_reads_as_nothing(path):
    assert read_committed(path, 0) == ([], 0)


def test_only_committed_rows_are_read(path):
    write(path, 0, 1, 2, commit=2)
    write(path, 2, 3)
    assert committed(path) == [1, 2]


def test_rows_come_back_as_they_went(path):
    writer = SpoolWriter.open(path, 0)
    value = {"a": 1 / 3, "nan": math.nan, "inf": math.inf, "minus": -math.inf, "big": 1e308}
    writer.append(SpoolRow(step=1, at=7, time_ms=5, metrics=value))
    writer.sync(writer.take(7))
    writer.commit(7)
    (got,), _ = read_committed(path, 0)
    assert (got.step, got.at, got.time_ms) == (1, 7, 5)
    assert math.isnan(got.metrics.pop("nan"))
    value.pop("nan")
    assert got.metrics == value
    assert b"NaN" not in path.read_bytes()


def test_a_reader_goes_on_from_its_offset(path):
    write(path, 0, 1, commit=1)
    rows, offset = read_committed(path, 0)
    write(path, 1, 2, 3, commit=3)
    more, end = read_committed(path, offset)
    assert [r.at for r in rows + more] == [1, 2, 3]
    assert read_committed(path, end) == ([], end)


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_torn_tail_is_repaired(path, cut):
    write(path, 0, 1, 2, commit=2)
    write(path, 2, 3)
    path.write_bytes(path.read_bytes()[:-cut])
    assert committed(path) == [1, 2]
    write(path, 2, 3, 4, commit=4)
    assert committed(path) == [1, 2, 3, 4]


def test_a_torn_mark_is_written_again(path):
    write(path, 0, 1, 2, commit=2)
    path.write_bytes(path.read_bytes()[:-3])
    assert committed(path) == []
    write(path, 2, 3, commit=3)
    assert committed(path) == [1, 2, 3]


def test_a_crash_between_checkpoint_and_mark_loses_nothing(path):
    write(path, 0, 1, 2, 3)  # the checkpoint of step 2 was committed, its mark was not
    write(path, 2)
    assert committed(path) == [1, 2]


def test_a_fallback_to_an_older_checkpoint_records_nothing_twice(path):
    write(path, 0, 1, 2, commit=2)
    write(path, 2, 3, 4, commit=4)
    write(path, 2, 3, 4, 5, commit=5)  # the checkpoint of step 4 was damaged
    assert committed(path) == [1, 2, 3, 4, 5]


def test_a_mark_releases_only_the_rows_of_its_checkpoint(path):
    """Rows appended while a checkpoint is written are not covered by it."""
    writer = SpoolWriter.open(path, 0)
    writer.append(row(1))
    writer.append(row(2))
    writer.append(row(3))
    rows = writer.take(2)
    writer.append(row(4))
    writer.sync(rows)
    writer.append(row(5))
    writer.commit(2)
    assert committed(path) == [1, 2]
    writer.append(row(2))  # too late for its checkpoint: it would come twice after a resume
    writer.sync(writer.take(5))
    writer.commit(5)
    assert committed(path) == [1, 2, 3, 4, 5]


def test_a_zombie_writes_where_nobody_reads(path):
    zombie = SpoolWriter.open(path, 0)
    write(path, 0, 1, commit=1)
    zombie.append(row(1))
    zombie.sync(zombie.take(1))
    zombie.commit(1)
    assert committed(path) == [1]


def test_a_full_disk_leaves_no_half_line(path, faults):
    write(path, 0, 1, commit=1)
    writer = SpoolWriter.open(path, 1)
    before = path.read_bytes()
    writer.append(row(2))
    with faults("ENOSPC", 1).installed(), pytest.raises(OSError, match="No space"):
        writer.sync(writer.take(2))
    assert path.read_bytes() == before


def live(path, rng, checkpoints, steps, every, asynchronous):
    """One attempt: train, save and maybe die anywhere, as FolderContext orders it.

    Asynchronously, the stages of a write go on between later steps, and the next save waits.
    """

    class Killed(Exception):
        pass

    def may_die(probability=0.08):
        if rng.random() < probability:
            raise Killed

    def save(at, rows):
        writer.sync(rows)
        yield may_die()
        checkpoints.add(at)
        yield may_die()
        writer.commit(at)

    start = max(checkpoints, default=0)
    if checkpoints and rng.random() < 0.25:  # the newest is damaged
        checkpoints.discard(start)
        start = max(checkpoints, default=0)
    writer = SpoolWriter.open(path, start)
    under_way = iter(())
    try:
        for at in range(start + 1, steps + 1):
            may_die()
            if rng.random() < 0.4:
                next(under_way, None)
            writer.append(row(at))
            if at % 3 == 0:
                writer.append(row(at, step=at // 3, **{"val/top1": float(at)}))
            if at % every == 0 or at == steps:
                list(under_way)
                under_way = save(at, writer.take(at))
                if not asynchronous:
                    list(under_way)
        list(under_way)
    except Killed:
        data = path.read_bytes()
        if rng.random() < 0.5:  # power loss: what was not synced may be half there
            path.write_bytes(data + b'{"step": 1, "at": 1, "tim'[: rng.randrange(26)])
        return False
    finally:
        writer.close()
    return True


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 30),
    every=st.integers(1, 9),
    asynchronous=st.booleans(),
)
def test_any_schedule_of_crashes_records_each_step_once(seed, steps, every, asynchronous):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path, offset, sent = Path(folder) / "m.jsonl", 0, []
        checkpoints: set[int] = set()
        for _ in range(2000):
            done = live(path, rng, checkpoints, steps, every, asynchronous)
            if done or rng.random() < 0.7:  # the driver reads now and then
                rows, offset = read_committed(path, offset)
                sent += [(key, r.step, v) for r in rows for key, v in r.metrics.items()]
            if done:
                break
        want = [("train/step_loss", at, at / 2) for at in range(1, steps + 1)]
        want += [("val/top1", at // 3, float(at)) for at in range(3, steps + 1, 3)]
        assert sorted(sent) == sorted(want)
