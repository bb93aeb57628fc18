"""A study in a few lines, from its own run alone. Imports nothing heavy; `status` uses it."""

from typing import Any

from orchestrator.jobs.job import STUDY, TAG_BASELINE_CELL, Job
from orchestrator.results.links import artifact_page

_PAGE = "report/report.html"


def numbers(job: Job) -> list[tuple[str, str]]:
    """Return what `status` says of a study, as pairs of label and text."""
    config = job.raw_spec["config"]
    pairs = [
        ("trains", str(config.get("recipe", ""))),
        ("cells", _cells(config)),
        ("seeds", ", ".join(map(str, config.get("seeds", ())))),
        ("baseline", job.tags.get(TAG_BASELINE_CELL, "")),
    ]
    return [(label, text) for label, text in pairs + outcome(job) if text]


def outcome(job: Job) -> list[tuple[str, str]]:
    """Return what a study came to; empty before its report."""
    found = job.result
    if not found:
        return []
    return [("trainings", _trainings(found)), ("best", _best(found))]


def files(job: Job, mlflow_url: str) -> list[tuple[str, str]]:
    """Return where the report of a study is."""
    if job.kind != STUDY or _PAGE not in job.result.get("files", ()):
        return []
    page = artifact_page(job.experiment_id, job.run_id, _PAGE)
    return [("report", f"{mlflow_url}/{page}")]


def _cells(config: dict[str, Any]) -> str:
    """Return `one-at-a-time: pooling (gap, cov, isqrt), stride (1, 2)`."""
    factors = [
        f"{name} ({', '.join(map(str, factor.get('levels', ())))})"
        for name, factor in config.get("factors", {}).items()
    ]
    return f"{config.get('mode', '')}: {', '.join(factors)}" if factors else ""


def _trainings(found: dict[str, Any]) -> str:
    """Return `30 of 10 cells, 2 failed, 3 from elsewhere`."""
    parts = [f"{_count(found, 'trainings')} of {_count(found, 'cells')} cells"]
    for key, word in (
        ("failed", "failed or stopped"),
        ("missing", "missing"),
        ("reused", "trained for something else"),
    ):
        if count := _count(found, key):
            parts.append(f"{count} {word}")
    return ", ".join(parts)


def _best(found: dict[str, Any]) -> str:
    """Return `pooling=isqrt: eval/top1 98.7, baseline 97.2`."""
    name = str(found.get("metric", "")).replace("/", "_")
    best, baseline = found.get(f"study/best_{name}"), found.get(f"study/baseline_{name}")
    if not found.get("best") or best is None:
        return "no training has a result"
    text = f"{found['best']}: mean {found['metric']} {best:.4g}"
    return text if baseline is None else f"{text}; baseline {baseline:.4g}"


def _count(found: dict[str, Any], what: str) -> int:
    return int(found.get(f"study/num_{what}", 0))
