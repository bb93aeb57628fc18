"""A study's report, from a real MLflow server back into it, and opened in a real browser."""

import json
from pathlib import Path

import pytest

from cluster.profiles import Profile
from orchestrator.drivers.report import run_report_job
from orchestrator.drivers.stop_signal import StopSignal
from orchestrator.jobs.job import Job
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore, MetricPoint
from orchestrator.results.links import artifact_page
from tests.browser.chromium import Browser
from tests.unit.orchestrator.results import studies
from workloads.worker.paths import JobPaths

pytestmark = pytest.mark.integration

DRAWINGS = 4
TIME_MS = 1_795_000_000_000


def store_copy(store: JobStore, job: Job) -> Job:
    """Record a job of the unit tests' study with its tags, metrics and curve."""
    tags = {key: value for key, value in job.tags.items() if not key.startswith("mlflow.run")}
    made = store.create(job.job_id, store.experiment_id("report-study"), tags)
    points: list[MetricPoint] = [
        (key, value, TIME_MS, studies.EPOCHS) for key, value in job.metrics.items()
    ]
    if job.kind == "train":
        curve = studies.curve(job)[:-1]
        points += [("val/top1", value, TIME_MS + epoch, epoch) for epoch, value in curve]
        store.put_artifact(made, "environment.json", json.dumps(studies.ENVIRONMENT).encode())
    store.log_metrics(made, points)
    for state in (State.RUNNING, job.state):
        made = store.get(made.run_id)
        store.move(made, state, phase="", reason=job.tags.get("gcpctl.reason", ""))
    return store.get(made.run_id)


@pytest.fixture(scope="module")
def reported(profile: Profile) -> tuple[Job, Path]:
    """A study with one failed training, after its own driver has run twice."""
    store = JobStore.of(profile)
    for job in studies.whole_study(failed=["pool-cov-s1"]):
        store_copy(store, job)
    study = store_copy(store, studies.parent())
    paths = JobPaths(profile.storage_path / study.job_id)
    paths.root.mkdir(parents=True)
    for _ in range(2):
        study = store.get(study.run_id)
        outcome = run_report_job(profile, study, paths, StopSignal(paths))
        assert outcome.kind == "finished", outcome.reason
        store.set_tags(study, outcome.tags)
    return store.get(study.run_id), paths.root / "report"


def test_what_mlflow_holds_is_what_was_written(
    profile: Profile, reported: tuple[Job, Path]
) -> None:
    study, folder = reported
    store = JobStore.of(profile)
    names = [*store.list_artifacts(study, "report"), *store.list_artifacts(study, "report/figures")]
    assert len(names) == 7 + 2 * DRAWINGS
    assert set(study.result["files"]) <= set(names)
    for name in names:
        assert store.read_artifact(study, name) == (folder.parent / name).read_bytes()
    best = sum(studies.TOP1["isqrt"]) / len(studies.SEEDS)
    assert study.metrics["study/best_top1"] == pytest.approx(best, abs=1e-12)
    assert study.metrics["study/num_failed"] == 1
    # Twice written, stored once: time and value are the same.
    assert len(store.metric_history(study.run_id, "study/best_top1")) == 1
    assert study.tags["mlflow.note.content"].count("## What it found") == 1


def test_the_page_holds_in_a_browser(
    browser: Browser, reported: tuple[Job, Path], pictures: Path
) -> None:
    _, folder = reported
    browser.open((folder / "report.html").as_uri())
    browser.wait_for("document.querySelectorAll('figure svg').length === 4")
    browser.picture(pictures / "report.png")
    assert browser.texts("h1") == [studies.QUESTION]
    # Every drawing is as wide as the text, and shows something.
    assert browser.ask(
        "[...document.querySelectorAll('figure svg')].every(svg => "
        "svg.getBoundingClientRect().width > 700 && svg.getBBox().height > 50)"
    )
    assert browser.ask("document.documentElement.scrollWidth <= window.innerWidth")
    rows = browser.texts("table:first-of-type tbody tr")
    assert any(text.startswith("pooling=isqrt") and "97.39 ± 0.24" in text for text in rows)
    assert browser.texts("p.failure")[0].startswith("Incomplete. In no mean of top-1 below: 1 of 9")


def test_mlflow_shows_the_page_behind_the_link_of_the_note(
    browser: Browser, profile: Profile, reported: tuple[Job, Path], pictures: Path
) -> None:
    study, _ = reported
    page = artifact_page(study.experiment_id, study.run_id, "report/report.html")
    assert page in study.tags["mlflow.note.content"]
    browser.open(f"{profile.mlflow_url}/{page}")
    browser.wait_for("document.querySelector('iframe') !== null")
    browser.picture(pictures / "report-in-mlflow.png")
