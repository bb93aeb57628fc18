"""Trials of one worker, in this process as in the one that Ray Tune would give them."""

import json
import os
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.tune.experiment.trial import _TrialInfo

from orchestrator.drivers.tuning.in_process import InProcessRun
from orchestrator.drivers.tuning.trainable import SCORE, SETTINGS, TASK, TrialActor
from orchestrator.drivers.tuning.trial import Report, TrialSettings, TrialTask
from orchestrator.jobs.space import trial_config
from workloads.training.loop import train
from workloads.worker.context import MemoryContext
from workloads.worker.folder_context import STOP_POLL_S

BASE: dict[str, Any] = {
    "epochs": 3,
    "steps_per_epoch": 2,
    "global_batch_size": 64,
    "model": {
        "backbone": {"name": "small_resnet", "width": 4, "blocks": [1]},
        "head": {"reduced_channels": 4},
    },
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def settings(tmp_path: Path) -> TrialSettings:
    return TrialSettings("tune-x", str(tmp_path), BASE, attempt=1, metric="val/top1")


@pytest.fixture(scope="module")
def reference() -> MemoryContext:
    """What a training of the base comes to by itself."""
    context = MemoryContext()
    train(trial_config(BASE, {}), context)
    return context


def to_the_end(run: InProcessRun) -> list[Report]:
    reports = [run.next_report()]
    while reports[-1].state == "running":
        run.proceed()
        reports.append(run.next_report())
    return reports


def epochs(report: Report) -> list[int]:
    return [row.step for row in report.rows]


def weights_of(settings: TrialSettings, task: TrialTask) -> str:
    return str(json.loads(task.paths(settings).result.read_text())["weights_sha256"])


def test_a_trial_trains_what_a_job_would(settings, reference):
    task = TrialTask(0, {})
    reports = to_the_end(InProcessRun(settings, task))
    assert [(r.state, epochs(r)) for r in reports] == [
        ("running", [1]),
        ("running", [2]),
        ("finished", [3]),
    ]
    assert weights_of(settings, task) == reference.result.weights_sha256
    told = [row.metrics["val/top1"] for report in reports for row in report.rows]
    assert told == [m["val/top1"] for _, _, m in reference.metrics if "val/top1" in m]
    assert "model/macs" in reports[0].rows[0].metrics


def test_one_that_is_ended_leaves_nothing_and_another_follows(settings, reference):
    before = threading.active_count()
    run = InProcessRun(settings, TrialTask(0, {}))
    assert run.next_report().state == "running"
    run.abandon()
    assert threading.active_count() == before
    assert not TrialTask(0, {}).paths(settings).result.exists()
    other = TrialTask(1, {})
    to_the_end(InProcessRun(settings, other))
    assert weights_of(settings, other) == reference.result.weights_sha256


def test_a_stopped_sweep_saves_its_trials_and_they_go_on(settings, reference):
    task = TrialTask(0, {})
    run = InProcessRun(settings, task)
    run.next_report()
    settings.stop_file.touch()
    time.sleep(STOP_POLL_S)  # it looks no more often
    run.proceed()
    assert run.next_report().state == "stopped"
    settings.stop_file.unlink()
    reports = to_the_end(InProcessRun(settings, task))
    assert reports[-1].state == "finished"
    assert sorted({step for r in reports for step in epochs(r)}) == [1, 2, 3]
    assert weights_of(settings, task) == reference.result.weights_sha256


def test_what_was_trained_and_not_told_is_told_by_the_next_life(settings):
    task = TrialTask(0, {})
    to_the_end(InProcessRun(settings, task))
    (report,) = to_the_end(InProcessRun(settings, task))  # the driver died before it heard the end
    assert (report.state, epochs(report)) == ("finished", [1, 2, 3])


DIVERGES = {"optim.lr": 100.0, "optim.weight_decay": 1.0, "steps_per_epoch": 22}


@pytest.mark.parametrize(
    ("values", "says"),
    [(DIVERGES, "Diverged"), ({"optim.lr": 1e9}, "optim.lr")],
    ids=["diverges", "invalid"],
)
def test_a_failure_is_a_result(settings, values, says):
    report = to_the_end(InProcessRun(settings, TrialTask(0, values)))[-1]
    assert (report.state, report.failure_class) == ("failed", "user")
    assert says in report.reason


def test_a_newer_attempt_keeps_an_older_one_out(settings, tmp_path):
    task = TrialTask(0, {})
    newer = replace(settings, attempt=2)
    to_the_end(InProcessRun(newer, task))
    assert to_the_end(InProcessRun(settings, task))[-1].failure_class == "fenced"


def test_a_paused_trial_has_saved_the_epoch_it_reported(settings):
    base = {**BASE, "checkpoint": {"every_epochs": 3}}
    settings = replace(settings, base=base, saves_each_epoch=True)
    run = InProcessRun(settings, TrialTask(0, {}))
    assert epochs(run.next_report()) == [1]
    run.abandon()
    reports = to_the_end(InProcessRun(settings, TrialTask(0, {})))
    assert [epochs(report) for report in reports] == [[1, 2], [3]]


class Actor(TrialActor):
    """Without the folder that Ray Tune would give it."""

    def _setup_logdir(self) -> None:
        self._logdir = os.getcwd()


def told(settings: TrialSettings, number: int, trial: int | None = None, **values: Any) -> dict:
    info = _TrialInfo.__new__(_TrialInfo)
    info._trial_id = f"t{number if trial is None else trial:03d}"
    task = TrialTask(number, values)
    return {TASK: asdict(task), SETTINGS: asdict(settings), "__trial_info__": info}


def test_one_process_serves_trial_after_trial(settings):
    actor = Actor(told(settings, 0))
    assert actor.train()[SCORE] > 0
    assert actor.reset(told(settings, 1, **{"optim.lr": 0.01}))
    results = [actor.train() for _ in range(3)]
    assert [r["done"] for r in results] == [False, False, True]
    assert [r["epoch"] for r in results] == [1, 2, 3]
    assert results[-1]["values"] == {"optim.lr": 0.01}
    assert "config" not in results[-1]
    actor.stop()


def test_a_trial_goes_on_from_another_ones_weights(settings, tmp_path):
    settings = replace(settings, saves_each_epoch=True, hands_on_weights=True)
    strong, weak = Actor(told(settings, 0)), Actor(told(settings, 1, **{"optim.lr": 0.001}))
    for _ in range(2):
        strong.train()
    weak.train()
    copy = tmp_path / "copy"
    copy.mkdir()
    assert strong.save_checkpoint(str(copy)) is None
    strong.train()
    # Ray Tune hands the strong one's config over, with new values.
    assert weak.reset(told(settings, 0, trial=1, **{"optim.lr": 0.02}))
    weak.load_checkpoint(str(copy))
    result = weak.train()
    assert (result["generation"], result["values"], result["epoch"]) == (1, {"optim.lr": 0.02}, 3)
    assert result["done"]
    assert [row["step"] for row in result["rows"]] == [3]
    # The strong one is where it was.
    assert not (tmp_path / "trials" / "t000" / "g1").exists()
    strong.stop()
    weak.stop()


def test_the_second_trial_finds_everything_loaded(settings):
    to_the_end(InProcessRun(settings, TrialTask(0, {})))
    loaded = len(sys.modules)
    to_the_end(InProcessRun(settings, TrialTask(1, {})))
    assert len(sys.modules) == loaded
