"""Run the attempt of a study itself: when all its jobs have ended, it tells what they came to.

It needs no worker. Whatever it does may be done again: files replace files, and the numbers have
the time of the study's last job.
"""

import json
from collections.abc import Mapping

from cluster.profiles import Profile
from orchestrator.drivers.files import store_file
from orchestrator.drivers.outcome import Outcome, say
from orchestrator.drivers.stop_signal import StopSignal
from orchestrator.drivers.tracking import patiently
from orchestrator.jobs.errors import ApiError, GcpctlError, UnreachableError
from orchestrator.jobs.job import TAG_RESULT, Job
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore, MetricPoint
from orchestrator.results.report import render_study, write_folder
from orchestrator.results.study_note import note, sentence
from orchestrator.results.study_report import StudyReport, gather
from workloads.worker.paths import JobPaths

REPORT = "report"
"""The report's folder, in the storage and among the study's artifacts."""
_NOTE = "mlflow.note.content"


def run_report_job(profile: Profile, job: Job, paths: JobPaths, stop: StopSignal) -> Outcome:
    """Compare what a study has trained, write its report and store it with the study."""
    if stop.is_set:
        return Outcome(kind="stopped", reason="stopped before the report was written")
    store = JobStore.of(profile)
    try:
        report = patiently(lambda: gather(store, job))
    except (UnreachableError, ApiError):
        raise  # of the infrastructure: the next attempt asks again
    except GcpctlError as exc:
        return Outcome.failed("user", f"{exc.message} ({exc.hint})" if exc.hint else exc.message)
    if not report.facts.is_final:  # queued again just as this attempt was launched
        active = sum(not State(state).is_final for state in report.facts.members.values())
        text = f"{active} of its jobs were queued again; it reports when they have ended"
        return Outcome.failed("infrastructure", text)
    files = render_study(report)
    stored = store_report(store, job, files, paths)
    time_ms = report.facts.ended_ms
    points: list[MetricPoint] = [(k, v, time_ms, 0) for k, v in metrics(report).items()]
    patiently(lambda: store.log_metrics(job, points))
    _refresh_views(store, profile, job)
    tags = {
        TAG_RESULT: json.dumps(_result(report, stored), ensure_ascii=False),
        _NOTE: note(report, before=job.tags.get(_NOTE, ""), files=stored, folder=REPORT),
    }
    return Outcome(kind="finished", reason=sentence(report), tags=tags)


def store_report(
    store: JobStore, job: Job, files: Mapping[str, bytes], paths: JobPaths
) -> list[str]:
    """Write a report's files and store them with the job; return the names of those stored."""
    folder = paths.root / REPORT
    write_folder(files, folder)
    say(f"wrote {len(files)} files to {folder}")
    return [
        name
        for name, content in files.items()
        if store_file(store, job, f"{REPORT}/{name}", content, place=folder / name)
    ]


def metrics(report: StudyReport) -> dict[str, float]:
    """Return a study's own numbers; none has the name of one that trainings record."""
    comparison = report.comparison
    key, name = comparison.metric.key, comparison.metric.key.replace("/", "_")
    trainings = [t for cell in comparison.cells for t in cell.trainings]
    found = {
        "study/num_cells": len(comparison.cells),
        "study/num_trainings": len(trainings),
        "study/num_failed": sum(t.state in ("FAILED", "KILLED") for t in trainings),
        "study/num_missing": len(report.missing),
        "study/num_reused": sum(t.reused for t in trainings),
        "study/train_s": sum(t.metrics.get("time/train_s", 0.0) for t in trainings),
    }
    if report.ranked:
        found[f"study/best_{name}"] = report.ranked[0].values[key].mean
    if report.baseline is not None and key in report.baseline.values:
        found[f"study/baseline_{name}"] = report.baseline.values[key].mean
    return {metric: float(value) for metric, value in found.items()}


def _result(report: StudyReport, stored: list[str]) -> dict[str, object]:
    """Return what a script wants to know of a finished study."""
    comparison = report.comparison
    best = report.ranked[0].name if report.ranked else None
    return {
        "metric": comparison.metric.key,
        "best": best,
        "baseline": comparison.baseline or None,
        **metrics(report),
        "files": [f"{REPORT}/{name}" for name in stored if "/" not in name],
    }


def _refresh_views(store: JobStore, profile: Profile, job: Job) -> None:
    """Have the saved views of the MLflow UI know what is known now; a report needs them not."""
    from orchestrator.results.views import put_study_views

    try:
        put_study_views(store, profile, job)
    except GcpctlError as exc:
        say(f"could not refresh the views in the MLflow UI: {exc.message}")
