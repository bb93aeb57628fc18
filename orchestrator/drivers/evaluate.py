"""Run one attempt of an evaluation on N workers, and store what it found."""

import json
import math
from pathlib import Path
from typing import Any

from cluster.profiles import Profile
from orchestrator.drivers.files import store_file
from orchestrator.drivers.group import RunWorkers
from orchestrator.drivers.outcome import Outcome, say
from orchestrator.drivers.stop_signal import StopSignal
from orchestrator.drivers.tracking import patiently
from orchestrator.drivers.weights import locate_weights
from orchestrator.drivers.worker import WorkerSettings
from orchestrator.jobs.errors import ApiError, GcpctlError, UnreachableError
from orchestrator.jobs.job import EVALUATION, PREFIX, TAG_RESULT, Job
from orchestrator.jobs.store import JobStore, MetricPoint, now_ms
from workloads.worker.paths import JobPaths

_NOTE = "mlflow.note.content"
_TEXT_LIMIT = 500
"""Characters of a text in the result; the tag that holds it all takes 8000."""
_MANY_NOTES = 5


def run_evaluation_job(
    profile: Profile,
    job: Job,
    attempt: int,
    paths: JobPaths,
    stop: StopSignal,
    run_workers: RunWorkers,
) -> Outcome:
    """Evaluate on the cluster, then store numbers and files with the job.

    It begins anew at each attempt: there is nothing to resume, and the files of an attempt before
    are replaced by equal ones.
    """
    if stop.is_set:
        return Outcome(kind="stopped", reason="stopped before the workers started")
    config = job.raw_spec["config"]
    try:
        weights = locate_weights(profile, config["weights"], paths)
    except (UnreachableError, ApiError):
        raise  # of the infrastructure: the next attempt asks again
    except GcpctlError as exc:
        text = f"{exc.message} ({exc.hint})" if exc.hint else exc.message
        return Outcome.failed("user", text)
    say(f"evaluating {config['origin'] or weights}: {weights}")
    resources = job.gang
    settings = WorkerSettings(
        config={**config, "weights": str(weights)},
        root=str(paths.root),
        attempt=attempt,
        threads=resources.cpus_per_worker,
        use_gpu=resources.gpus_per_worker > 0,
        kind="eval",
    )
    failed = run_workers(settings, resources, name=job.job_id, storage_path=profile.storage_path)
    return failed or _result(JobStore.of(profile), job, paths)


def _result(store: JobStore, job: Job, paths: JobPaths) -> Outcome:
    try:
        result: dict[str, Any] = json.loads(paths.result.read_text())
    except (FileNotFoundError, ValueError):
        return Outcome.failed("infrastructure", "the workers returned without a result")
    if result.pop("stopped"):
        return Outcome(kind="stopped", reason="stopped on request; nothing was recorded")
    metrics = {key: value for key, value in result["metrics"].items() if math.isfinite(value)}
    # One time for all tries: a point that is sent again is stored once.
    time_ms = now_ms()
    points: list[MetricPoint] = [(f"eval/{key}", v, time_ms, 0) for key, v in metrics.items()]
    patiently(lambda: store.log_metrics(job, points))
    stored = _store_files(store, job, paths.evaluation)
    summary = {**_brief(result), "files": stored}
    tags = {
        TAG_RESULT: json.dumps(summary, ensure_ascii=False),
        PREFIX + "evaluation": str(paths.evaluation),
        _NOTE: "\n\n".join(filter(None, (job.tags.get(_NOTE, ""), _table(metrics)))),
    }
    return Outcome(kind="finished", reason=_sentence(metrics), tags=tags)


def _store_files(store: JobStore, job: Job, folder: Path) -> list[str]:
    """Send the files; one that the server does not take stays on the storage, and is named."""
    stored = []
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        name = f"{EVALUATION}/{path.name}"
        if store_file(store, job, name, path.read_bytes(), place=path):
            stored.append(name)
    return stored


def _brief(result: dict[str, Any]) -> dict[str, Any]:
    """Return what a tag has room for: numbers and texts, no tables."""
    notes = [str(note)[:_TEXT_LIMIT] for note in result.get("notes", ())][:_MANY_NOTES]
    texts = {key: value[:_TEXT_LIMIT] for key, value in result.items() if isinstance(value, str)}
    numbers = {key: value for key, value in result.items() if isinstance(value, int | float)}
    return {**numbers, **texts, "notes": notes}


def _sentence(metrics: dict[str, float]) -> str:
    parts = [
        f"{word} {metrics[key]:{form}}{unit}"
        for key, word, form, unit in (
            ("top1", "top-1", ".2f", " %"),
            ("top5", "top-5", ".2f", " %"),
            ("loss", "loss", ".4f", ""),
        )
        if key in metrics
    ]
    return ", ".join(parts)


def _table(metrics: dict[str, float]) -> str:
    """Return the numbers as MLflow's page shows them in Markdown."""
    lines = ["| metric | value |", "|---|---|"]
    return "\n".join(lines + [f"| {key} | {value:.6g} |" for key, value in metrics.items()])
