"""Which trials Ray Tune is handed, how many at once, and what the journal makes of their ends."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Experiment
from ray.tune.experiment import Trial as TuneTrial

from orchestrator.drivers.tuning.feeder import Ending, Listener, TrialFeeder
from orchestrator.drivers.tuning.journal import Journal
from orchestrator.drivers.tuning.trainable import TASK, TrialActor
from orchestrator.drivers.tuning.trial import TrialSettings
from workloads.worker.ownership import Ownership
from workloads.worker.paths import JobPaths


class Search:
    """Gives out rates until there are none."""

    def __init__(self, count: int = 99) -> None:
        self.count = count

    def choose(self, number: int, trials: Any) -> dict[str, Any] | None:
        return {"optim.lr": 0.1 + number} if number < self.count else None


def open_journal(root: Path, attempt: int = 1) -> Journal:
    ownership = Ownership(JobPaths(root), attempt)
    ownership.claim()
    return Journal(root / "tune" / "journal.jsonl", ownership)


def feeder_of(journal: Journal, root: Path, **fields: Any) -> TrialFeeder:
    settings = TrialSettings("tune-x", str(root), {}, attempt=1, metric="val/top1")
    options = {"total": 4, "cap": 2, "stopping": lambda: False, **fields}
    feeder = TrialFeeder(journal, options.pop("search", Search()), settings, **options)
    experiment = Experiment("trials", TrialActor, storage_path=str(root / "ray"), num_samples=4)
    feeder.add_configurations([experiment])
    return feeder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "job"


def drain(feeder: TrialFeeder) -> list[TuneTrial]:
    found = []
    while (trial := feeder.next_trial()) is not None:
        found.append(trial)
    return found


def test_trials_come_while_there_is_room_and_are_in_the_journal_first(root):
    journal = open_journal(root)
    feeder = feeder_of(journal, root)
    first = drain(feeder)
    assert [trial.trial_id for trial in first] == ["t000", "t001"]
    assert first[1].config[TASK] == {"number": 1, "values": {"optim.lr": 1.1}, "generation": 0}
    first[0].status = TuneTrial.TERMINATED
    assert [trial.trial_id for trial in drain(feeder)] == ["t002"]
    assert sorted(journal.trials) == [0, 1, 2]
    assert not feeder.is_finished()
    first[1].status = TuneTrial.ERROR
    assert [trial.trial_id for trial in drain(feeder)] == ["t003"]
    assert feeder.is_finished()


def test_the_next_attempt_begins_with_what_the_one_before_left(root):
    journal = open_journal(root)
    drain(feeder_of(journal, root, cap=3))
    journal.end(1, "finished", reason="", time_ms=1)
    journal.close()
    again = open_journal(root, attempt=2)
    feeder = feeder_of(again, root, cap=3)
    assert [trial.trial_id for trial in drain(feeder)] == ["t000", "t002", "t003"]
    assert again.trials[3].values == {"optim.lr": 3.1}


def test_paused_trials_make_room_and_keep_the_search_open(root):
    feeder = feeder_of(open_journal(root), root, pauses=True)
    handed = drain(feeder)
    for trial in handed:
        trial.status = TuneTrial.PAUSED
    handed += drain(feeder)
    assert [trial.trial_id for trial in handed] == ["t000", "t001", "t002", "t003"]
    assert not feeder.is_finished()
    for trial in handed:
        trial.status = TuneTrial.TERMINATED
    assert feeder.is_finished()


def test_a_search_without_points_is_over(root):
    feeder = feeder_of(open_journal(root), root, search=Search(1))
    assert len(drain(feeder)) == 1
    assert feeder.is_finished()


def test_a_sweep_that_is_asked_to_end_waits_for_its_trials_to_save(root):
    asked: list[bool] = []
    feeder = feeder_of(open_journal(root), root, stopping=lambda: bool(asked))
    ending = Ending(feeder, lambda: bool(asked))
    handed = drain(feeder)
    assert not ending.stop_all()
    asked.append(True)
    assert feeder.next_trial() is None
    assert feeder.is_finished()
    assert not ending.stop_all()
    handed[0].status, handed[1].status = TuneTrial.TERMINATED, TuneTrial.PAUSED
    assert ending.stop_all()


def listen(root: Path, **result: Any) -> tuple[Listener, Journal]:
    """Let one trial report and end; return who heard it."""
    journal = open_journal(root)
    journal.create(0, {"optim.lr": 0.1}, time_ms=0)
    stopping = result.pop("stopping", False)
    listener = Listener(
        journal, scheduler="asha", stopping=lambda: stopping, changed=lambda trial: None
    )
    row = {"step": 2, "at": 2, "time_ms": 2, "metrics": {"val/top1": 50.0}}
    said = {
        "state": "running",
        "reason": "",
        "failure_class": "",
        "rows": [row],
        "generation": 0,
        "values": {"optim.lr": 0.1},
        "seconds": 1.0,
        **result,
    }
    trial = SimpleNamespace(trial_id="t000")
    listener.on_trial_result(1, [], trial, said)
    listener.on_trial_complete(1, [], trial)
    return listener, journal


@pytest.mark.parametrize(
    ("result", "end", "reason"),
    [
        ({"state": "finished", "reason": "val top-1 50 %"}, "finished", "val top-1 50 %"),
        ({}, "pruned", "stopped by asha after epoch 2"),
        ({"state": "failed", "reason": "diverged", "failure_class": "user"}, "failed", "diverged"),
        ({"state": "stopped"}, None, ""),
        ({"stopping": True}, None, ""),
    ],
)
def test_how_a_trial_ended(root, result, end, reason):
    listener, journal = listen(root, **result)
    assert (journal.trials[0].end, journal.trials[0].reason) == (end, reason)
    assert listener.fatal is None


@pytest.mark.parametrize("failure_class", ["storage", "fenced"])
def test_what_any_trial_would_meet_ends_the_sweep_and_no_trial(root, failure_class):
    failed = {"state": "failed", "reason": "disk full", "failure_class": failure_class}
    listener, journal = listen(root, **failed)
    assert listener.fatal == (failure_class, "disk full")
    assert journal.trials[0].end is None
