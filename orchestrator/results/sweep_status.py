"""A sweep in a few lines, from its own run alone. Imports nothing heavy; `status` uses it."""

from typing import Any

from orchestrator.jobs.job import Job

_ENDINGS = ("finished", "pruned", "failed", "running")
_MOST = 5
"""Trials of a front, and settings, that are shown."""


def numbers(job: Job) -> list[tuple[str, str]]:
    """Return what `status` says of a sweep, as pairs of label and text."""
    pairs = [("search", job.raw_spec["description"])]
    if job.progress and not job.state.is_final:
        pairs.append(("progress", str(job.progress.get("text", ""))))
    return pairs + outcome(job)


def outcome(job: Job) -> list[tuple[str, str]]:
    """Return what a sweep came to; empty before its end."""
    found = job.result
    if not found:
        return []
    counts = found.get("trials", {})
    pairs = [("trials", ", ".join(f"{counts[e]} {e}" for e in _ENDINGS if counts.get(e)))]
    best = found.get("best")
    pairs.append(("best", _trial(best) if best else "no trial finished"))
    front = found.get("front", [])
    pairs += [(f"front {i}", _trial(trial)) for i, trial in enumerate(front[:_MOST], start=1)]
    if len(front) > _MOST:
        pairs.append(("", f"and {len(front) - _MOST} more on the front; all are in trials.csv"))
    pairs.append(("importance", _importance(found)))
    pairs.append(("cost", _cost(found)))
    if best:
        pairs.append(("best recipe", "best.yaml, among the artifacts of its run in MLflow"))
    return [(label, text) for label, text in pairs if text]


def _trial(trial: dict[str, Any]) -> str:
    reached = ", ".join(f"{name} {value:.5g}" for name, value in trial["metrics"].items())
    return f"{trial['trial']}: {reached} with {trial['cell'].replace(',', ', ')}"


def _importance(found: dict[str, Any]) -> str:
    shares = sorted(found.get("importance", {}).items(), key=lambda item: -item[1])
    text = ", ".join(f"{label} {100 * share:.0f} %" for label, share in shares[:_MOST])
    remark = found.get("importance_remark", "")
    return f"{text} ({remark})" if text and remark else text or remark


def _cost(found: dict[str, Any]) -> str:
    parts = [f"{found.get('cpu_s', 0.0) / 3600:.3g} hours of CPU cores"]
    if found.get("gpu_s"):
        parts.append(f"{found['gpu_s'] / 3600:.3g} hours of GPUs")
    text = f"{' and '.join(parts)}, {found.get('epochs', 0)} epochs"
    spared = found.get("epochs_spared")
    return f"{text}; ending trials early spared {spared}" if spared else text
