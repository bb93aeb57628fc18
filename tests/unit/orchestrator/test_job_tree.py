"""What `status --tree` shows below studies and sweeps, and how few runs it reads for that."""

import json
from dataclasses import replace

import pytest

from orchestrator.cli import group_page, job_tree
from orchestrator.jobs.errors import NotFoundError
from orchestrator.jobs.job import TAG_MEMBERS, TAG_RESULT, TAG_SPEC, Job
from orchestrator.jobs.states import State
from orchestrator.results.compare import compare
from orchestrator.results.comparison import Training
from orchestrator.results.exports import to_json
from orchestrator.results.progress import reported_cells
from tests.unit.orchestrator.results.test_live_group import Store as LiveStore
from tests.unit.orchestrator.results.test_progress import PARENT, STUDY, job, members


class Store(LiveStore):
    """A store with the reports of studies."""

    def __init__(self, *jobs: Job) -> None:
        super().__init__(*jobs)
        self.reports: dict[str, bytes] = {}

    def read_artifact(self, job, name):
        assert name == "report/comparison.json"
        if job.job_id not in self.reports:
            raise NotFoundError("no such file")
        return self.reports[job.job_id]


@pytest.fixture(autouse=True)
def marks(monkeypatch):
    monkeypatch.setattr(group_page, "_takes_marks", lambda: True)


def training(
    name: str, seed: int, cell: str, state: str = "FINISHED", **metrics: float
) -> Training:
    evaluation = {"top1": metrics["top1"]} if "top1" in metrics else {}
    return Training(
        job_id=name,
        run_id=name,
        experiment_id="1",
        kind="train",
        state=state,
        recipe="r",
        cell=cell,
        is_baseline=cell == "a=1",
        seed=seed,
        config={"seed": seed, "a": int(cell[-1])},
        metrics={"val/top1": 50.0},
        evaluation=evaluation,
        evaluation_job=f"eval-{name}" if evaluation else "",
    )


def report_of(*trainings: Training) -> bytes:
    found = compare(list(trainings), "top1")
    return json.dumps({"version": 1, "comparison": to_json(found)}).encode()


def ended(name: str) -> Job:
    return replace(
        PARENT, run_id=name, state=State.FINISHED, tags={**PARENT.tags, "gcpctl.job_id": name}
    )


def of_size(num: int) -> Job:
    return replace(PARENT, tags={**PARENT.tags, TAG_MEMBERS: str(num)})


def test_the_cells_of_a_report_are_those_of_its_comparison():
    report = report_of(
        training("p", 0, "a=1", top1=90.0),
        training("q", 1, "a=1", top1=92.0),
        training("s", 1, "a=2", state="FAILED"),
        training("r", 0, "a=2", top1=95.0),
    )
    base, other = reported_cells(report)
    assert (base.name, base.is_baseline, base.marks()) == ("a=1", True, "✓✓")
    assert base.top1_text() == "91.00 ± 1.41"
    assert (other.marks(), other.marks(plain=True), other.top1) == ("✓✗", "FX", (95.0,))


def test_a_training_whose_evaluation_failed_has_failed():
    report = report_of(training("p", 0, "a=1", top1=90.0), training("q", 1, "a=1"))
    (cell,) = reported_cells(report)
    assert (cell.marks(), cell.top1) == ("✓✗", (90.0,))


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b'{"comparison": {"cells": [{}]}}'])
def test_a_damaged_report_is_a_value_error(damage):
    with pytest.raises(ValueError, match=r"report has no|Expecting value"):
        reported_cells(damage)


def test_of_studies_that_have_ended_no_run_is_read():
    store = Store(*members())
    store.reports = {"old": report_of(training("p", 0, "a=1", top1=90.0))}
    tree = job_tree.JobTree(store, ["1"])
    assert tree.below(ended("old")) == ["  └ a=1 (baseline)  ✓      90.00"]
    assert store.read == 0


def test_a_study_that_ended_without_a_report_shows_its_jobs():
    tree = job_tree.JobTree(Store(*members()), ["1"])
    lines = tree.below(replace(PARENT, state=State.KILLED))
    assert [line.split()[1] for line in lines] == ["pooling=gap", "pooling=isqrt"]


def test_only_the_newest_that_have_ended_show_more_than_their_row():
    store = Store()
    store.reports = {f"s{n}": report_of(training("p", 0, "a=1", top1=90.0)) for n in range(5)}
    tree = job_tree.JobTree(store, ["1"])
    shown = [bool(tree.below(ended(f"s{n}"))) for n in range(5)]
    assert shown == [True, True, True, False, False]
    assert "of 2 more that have ended" in tree.note()
    assert job_tree.JobTree(store, ["1"]).note() == ""


def test_of_a_large_active_study_what_runs_is_read_and_no_more():
    store = Store(*members())
    tree = job_tree.JobTree(store, ["1"])
    lines = tree.below(of_size(300))
    assert "pooling=gap (baseline)  ▶      -      seed 0: epoch 3/8" in lines[0]
    assert lines[-1].endswith(f"status --tree {STUDY}")
    assert (len(lines), store.read) == (2, 1)


def test_active_studies_share_what_may_be_read(monkeypatch):
    monkeypatch.setattr(job_tree, "_MOST_RUNS", 10)
    store = Store(*members())
    tree = job_tree.JobTree(store, ["1"])
    first, second = tree.below(of_size(7)), tree.below(of_size(7))
    assert [len(first), store.read] == [2, 8]  # all 7, then the one that runs
    assert "only what runs" in second[-1]


def test_right_after_the_submit_the_size_follows_from_the_config():
    config = {
        "mode": "grid",
        "seeds": [0, 1, 2],
        "evaluate": {},
        "factors": {k: {"levels": {level: {} for level in "abcdef"}} for k in "xy"},
    }
    fresh = replace(PARENT, tags={**PARENT.tags, TAG_SPEC: json.dumps({"config": config})})
    store = Store(*members())
    assert "only what runs" in job_tree.JobTree(store, ["1"]).below(fresh)[-1]  # 216 jobs


def test_one_study_asked_for_by_name_is_shown_whole():
    lines = job_tree.whole(Store(*members()), of_size(300))
    assert [line.split()[1] for line in lines[:2]] == ["pooling=gap", "pooling=isqrt"]
    assert job_tree.whole(Store(), members()[0]) == []


def sweep(state: State, **tags: str) -> Job:
    objective = {"metric": "val/top1", "direction": "max"}
    spec = {"config": {"num_trials": 3, "objectives": [objective]}}
    return job("s", "tune", state, "", group="", tags={TAG_SPEC: json.dumps(spec), **tags})


def test_an_ended_sweep_shows_its_best_trial_from_its_own_run():
    best = {"trial": "s-t001", "metrics": {"val/top1": 98.25}, "cell": "lr=0.1"}
    store = Store()
    found = sweep(State.FINISHED, **{TAG_RESULT: json.dumps({"best": best, "front": []})})
    (line,) = job_tree.JobTree(store, ["1"]).below(found)
    assert line == "  └ s-t001  val/top1 98.25  lr=0.1"
    assert store.read == 0
    assert job_tree.JobTree(store, ["1"]).below(sweep(State.FAILED)) == []


def test_a_running_sweep_shows_its_trials_the_best_first():
    trials = [
        job(f"s-t{n}", "trial", State.FINISHED, f"lr={n}", group="s", metrics={"val/top1": n * 1.0})
        for n in range(3)
    ]
    lines = job_tree.JobTree(Store(*trials), ["1"]).below(sweep(State.RUNNING))
    assert [line.split()[1] for line in lines] == ["s-t2", "s-t1", "s-t0"]
