"""The memory of a sweep survives what a kill or a bad disk does to a file."""

from pathlib import Path

import pytest

from orchestrator.drivers.tuning.journal import Journal
from workloads.worker.failures import FencedError
from workloads.worker.ownership import Ownership
from workloads.worker.paths import JobPaths
from workloads.worker.spool import SpoolRow


def row(epoch: int, top1: float) -> SpoolRow:
    return SpoolRow(epoch, 10 * epoch, 1000 + epoch, {"progress/epoch": epoch, "val/top1": top1})


def open_journal(root: Path, attempt: int = 1) -> Journal:
    ownership = Ownership(JobPaths(root), attempt)
    ownership.claim()
    return Journal(root / "tune" / "journal.jsonl", ownership)


def report(journal: Journal, number: int, *rows: SpoolRow, generation: int = 0, **values):
    return journal.report(
        number,
        rows,
        values=values or journal.trials[number].values,
        generation=generation,
        seconds=1.0,
    )


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep of three trials: one finished, one pruned, one under way."""
    journal = open_journal(tmp_path / "job")
    for number, lr in enumerate((0.1, 0.2, 0.3)):
        journal.create(number, {"optim.lr": lr}, time_ms=number)
    report(journal, 0, row(1, 50.0))
    report(journal, 0, row(2, 60.0))
    journal.end(0, "finished", reason="", time_ms=7)
    report(journal, 1, row(1, 10.0))
    journal.end(1, "pruned", reason="stopped by asha after epoch 1", time_ms=8)
    report(journal, 2, row(1, 55.0))
    journal.close()
    return tmp_path / "job"


def test_all_of_it_is_there_again(sweep):
    journal = open_journal(sweep, attempt=2)
    assert [trial.end for trial in journal.trials.values()] == ["finished", "pruned", None]
    assert journal.trials[0].metrics["val/top1"] == 60.0
    assert journal.trials[0].curve("val/top1") == [(1, 50.0), (2, 60.0)]
    assert journal.trials[0].seconds == 2.0
    assert [trial.number for trial in journal.open_trials] == [2]
    assert (journal.num_ended, journal.damaged) == (2, 0)


def test_every_cut_leaves_what_was_whole(sweep):
    path = sweep / "tune" / "journal.jsonl"
    data = path.read_bytes()
    whole = {data[:i].count(b"\n"): i for i in range(len(data) + 1)}
    seen = set()
    for length in range(0, len(data), 23):
        path.write_bytes(data[:length])
        journal = open_journal(sweep)
        assert journal.damaged == 0
        assert path.read_bytes() == data[: data[:length].rfind(b"\n") + 1]
        seen.add((len(journal.trials), journal.num_ended))
        journal.close()
    assert len(whole) == data.count(b"\n") + 1
    assert {(0, 0), (3, 0), (3, 1), (3, 2)} <= seen


def test_half_a_line_is_cut_off_before_the_next(sweep):
    path = sweep / "tune" / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'0badc0de {"event":"ended","tri')
    journal = open_journal(sweep)
    journal.end(2, "failed", reason="diverged", time_ms=9)
    journal.close()
    again = open_journal(sweep)
    assert (again.trials[2].end, again.trials[2].reason, again.damaged) == ("failed", "diverged", 0)


def test_a_flipped_bit_costs_its_line_only(sweep):
    path = sweep / "tune" / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b"60.0", b"66.0")  # epoch 2 of the first trial
    path.write_bytes(b"".join(lines))
    journal = open_journal(sweep)
    assert journal.damaged == 1
    assert journal.trials[0].metrics["val/top1"] == 50.0
    assert journal.num_ended == 2


def test_repeated_epochs_count_once(sweep):
    journal = open_journal(sweep, attempt=2)
    fresh = report(journal, 2, row(1, 55.0), row(2, 56.0))
    assert [r.step for r in fresh] == [2]
    assert journal.trials[2].epoch == 2
    assert len(journal.trials[2].rows) == 2


def test_a_trial_that_goes_on_from_another_has_new_values_and_epochs(sweep):
    journal = open_journal(sweep)
    report(journal, 2, row(2, 57.0), row(3, 58.0))
    fresh = report(journal, 2, row(3, 70.0), generation=1, **{"optim.lr": 0.15})
    assert [r.metrics["val/top1"] for r in fresh] == [70.0]
    journal.close()
    trial = open_journal(sweep).trials[2]
    assert (trial.values, trial.generation) == ({"optim.lr": 0.15}, 1)
    assert trial.curve("val/top1") == [(1, 55.0), (2, 57.0), (3, 70.0)]


def test_an_attempt_that_was_replaced_writes_nothing(sweep):
    old = open_journal(sweep, attempt=2)
    new = open_journal(sweep, attempt=3)
    with pytest.raises(FencedError):
        old.end(2, "failed", reason="", time_ms=1)
    new.end(2, "finished", reason="", time_ms=1)
    assert open_journal(sweep, attempt=4).trials[2].end == "finished"


def test_a_number_is_given_once(sweep):
    with pytest.raises(ValueError, match="t002"):
        open_journal(sweep).create(2, {"optim.lr": 9.0}, time_ms=0)
