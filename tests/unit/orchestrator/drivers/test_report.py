"""The driver of a study: what it writes, stores and records."""

import json
from dataclasses import replace

import pytest

from cluster.profiles import Profile
from orchestrator.drivers import report as driver
from orchestrator.drivers.stop_signal import StopSignal
from orchestrator.jobs.errors import ApiError, UnreachableError
from orchestrator.jobs.job import TAG_RESULT
from orchestrator.jobs.states import State
from tests.unit.orchestrator.results.studies import STUDY, TOP1, StudyStore, whole_study
from tests.unit.orchestrator.test_checkpoints import profile_of
from workloads.worker.paths import JobPaths


@pytest.fixture
def paths(tmp_path) -> JobPaths:
    found = JobPaths(tmp_path / "storage" / STUDY)
    found.root.mkdir(parents=True)
    return found


@pytest.fixture
def run(paths, monkeypatch):
    """Run the driver over a store; drawings are left out, for they take seconds."""
    for name in (
        "figures.deltas",
        "figures.accuracy_against_cost",
        "curve_figures.convergence_bands",
        "curve_figures.matching",
    ):
        monkeypatch.setattr(f"orchestrator.results.{name}", lambda *args: None)
    refreshed = []
    monkeypatch.setattr(
        "orchestrator.results.views.put_study_views", lambda *args: refreshed.append(args)
    )

    def run_over(store: StudyStore, *, stopped: bool = False):
        monkeypatch.setattr(driver.JobStore, "of", lambda profile: store)
        profile: Profile = profile_of(paths.root.parent)
        stop = StopSignal(paths)
        stop.is_set = stopped
        outcome = driver.run_report_job(profile, store.study, paths, stop)
        return outcome, len(refreshed)

    return run_over


def test_numbers_files_and_note_are_stored_with_the_study(run, paths):
    store = StudyStore(whole_study(failed=["pool-cov-s1"]))
    outcome, refreshed = run(store)
    assert outcome.kind == "finished"
    assert outcome.reason == ("best pooling=isqrt: top-1 97.39 ± 0.24 %; 1 of 9 trainings missing")
    points = {key: value for key, value, _, _ in store.points}
    assert points == {
        "study/num_cells": 3,
        "study/num_trainings": 9,
        "study/num_failed": 1,
        "study/num_missing": 1,
        "study/num_reused": 0,
        "study/train_s": 81.0,
        "study/best_top1": pytest.approx(sum(TOP1["isqrt"]) / 3),
        "study/baseline_top1": pytest.approx(sum(TOP1["gap"]) / 3),
    }
    assert {"report/report.html", "report/results.csv"} <= set(store.files)
    for name, content in store.files.items():
        assert (paths.root / name).read_bytes() == content
    result = json.loads(outcome.tags[TAG_RESULT])
    assert (result["best"], result["baseline"]) == ("pooling=isqrt", "pooling=gap")
    assert result["files"] == list(store.files)
    note = outcome.tags["mlflow.note.content"]
    assert note.startswith("what was asked\n\n## What it found")
    assert len(note) < 8000
    assert refreshed == 1


def test_to_run_it_again_stores_the_same(run):
    store = StudyStore(whole_study())
    first, _ = run(store)
    files, points = dict(store.files), list(store.points)
    again, _ = run(store)
    assert again == first
    assert store.files == files
    assert store.points == points * 2  # equal times and values, which MLflow stores once


def test_a_file_that_the_server_refuses_costs_nothing_else(run, paths, capsys):
    class Refuses(StudyStore):
        def put_artifact(self, job, name, content):
            if name.endswith(".html"):
                raise ApiError("too large", status=413, text="")
            super().put_artifact(job, name, content)

    outcome, _ = run(Refuses(whole_study()))
    assert outcome.kind == "finished"
    assert "report/report.html" not in json.loads(outcome.tags[TAG_RESULT])["files"]
    assert "report.html" not in outcome.tags["mlflow.note.content"]
    assert (paths.root / "report" / "report.html").exists()
    assert "could not store report/report.html: too large" in capsys.readouterr().out


def test_an_empty_study_is_the_users_to_mend(run):
    outcome, _ = run(StudyStore([]))
    assert (outcome.kind, outcome.failure_class) == ("failed", "user")


def test_views_that_cannot_be_written_cost_no_report(run, monkeypatch, capsys):
    def away(*args):
        raise UnreachableError("MLflow does not answer")

    store = StudyStore(whole_study())
    monkeypatch.setattr("orchestrator.results.views.put_study_views", away)
    outcome, _ = run(store)
    assert outcome.kind == "finished"
    assert "could not refresh the views" in capsys.readouterr().out


def test_a_job_that_was_queued_again_meanwhile_is_waited_for(run):
    jobs = whole_study()
    queued = replace(jobs[0], state=State.SCHEDULED, end_ms=None)
    store = StudyStore([queued, *jobs[1:]])
    outcome, _ = run(store)
    assert (outcome.kind, outcome.failure_class) == ("failed", "infrastructure")
    assert outcome.reason.startswith("1 of its jobs")
    assert (store.files, store.points) == ({}, [])


def test_a_stop_before_the_beginning_writes_nothing(run):
    store = StudyStore(whole_study())
    outcome, _ = run(store, stopped=True)
    assert outcome.kind == "stopped"
    assert store.files == {}
