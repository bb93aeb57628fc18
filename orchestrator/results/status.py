"""Jobs as people want to see them: rows of a table, one job in full, stable JSON."""

import re
import time
from typing import Any

from orchestrator.jobs.job import PREFIX, STUDY, TAG_CHECKPOINT, TAG_PARENT, Job
from orchestrator.jobs.states import State
from orchestrator.jobs.store import safe_text
from orchestrator.results import evaluation, study_status, sweep_status
from orchestrator.results.links import run_page

_MOST_CHARACTERS = 2000
_CUT = " … (more in its log)"
"""Of a reason that is shown whole."""
HEADER = ("JOB", "STATE", "EPOCH", "TOP-1", "IMAGES/S", "TRY", "AGE", "WHY")


def search_filter(states: tuple[str, ...], recipe: str | None, *, everything: bool) -> str:
    """Return MLflow's filter text for what `status` was asked to show.

    Args:
        everything: Also the jobs of studies one by one, not only the studies.
    """
    # MLflow's filters know neither OR nor lists of states, but any number of exclusions.
    others = [state for state in State if states and state.value not in states]
    parts = [f"attributes.status != '{state}'" for state in others]
    if not everything:
        # Not an empty TAG_GROUP: jobs of earlier releases have none.
        parts.append(f"tags.`{TAG_PARENT}` IS NULL")
    if recipe:
        parts.append(f"tags.`{PREFIX}recipe` = '{safe_text(recipe)}'")
    return " AND ".join(parts)


def row(job: Job, now_s: float | None = None) -> tuple[str, ...]:
    """Return a job as a row under `HEADER`."""
    now = time.time() if now_s is None else now_s
    said = job.progress
    epochs = job.raw_spec["config"].get("epochs")
    epoch = job.epoch
    top1 = job.metrics.get("eval/top1" if job.kind == "eval" else "val/top1")
    speed = said.get("images_per_s") or job.metrics.get("perf/images_per_s")
    return (
        job.job_id,
        job.state.value,
        f"{epoch}/{epochs}" if epochs else "-",
        f"{top1:.2f}" if top1 is not None else "-",
        f"{speed:,.0f}" if speed else "-",
        str(job.attempt or "-"),
        age(now - job.start_ms / 1000),
        why(job),
    )


def why(job: Job) -> str:
    """Return what a person wants to know besides the state."""
    if job.state is State.RUNNING:
        return job.phase + (f" ({one_line(job.reason)})" if job.reason else "")
    return one_line(job.reason) or (job.phase if job.state is State.SCHEDULED else "")


def one_line(text: str) -> str:
    """Return the first line of a text that others wrote, without what a terminal would obey.

    A line that ends with a colon announces what the next one says, and is joined with it.
    """
    lines = [line.strip() for line in text.strip().split("\n")]
    return _without_controls(" ".join(lines[:2]) if lines[0].endswith(":") else lines[0])


def all_lines(text: str) -> str:
    """Return a text that others wrote, without what a terminal would obey but its line breaks."""
    text = text.strip()
    if len(text) > _MOST_CHARACTERS:
        text = text[:_MOST_CHARACTERS].rstrip() + _CUT
    return "\n".join(_without_controls(line.rstrip()) for line in text.split("\n"))


def _without_controls(text: str) -> str:
    """Return a line that others wrote, without what a terminal would obey."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text)


def age(seconds: float) -> str:
    """Return an age in one unit: `42s`, `7m`, `3h`, `12d`."""
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= unit:
            return f"{int(seconds // unit)}{name}"
    return f"{int(max(seconds, 0))}s"


def to_json(job: Job) -> dict[str, Any]:
    """Return a job with the keys that scripts may rely on."""
    spec = job.raw_spec
    return {
        "job_id": job.job_id,
        "run_id": job.run_id,
        "experiment_id": job.experiment_id,
        "kind": job.kind,
        "group": job.group or None,
        "cell": job.cell or None,
        "description": spec.get("description", ""),
        "state": job.state.value,
        "phase": job.phase,
        "reason": job.reason,
        "attempt": job.attempt,
        "priority": job.priority,
        "recipe": spec["recipe"],
        "study": spec["study"],
        "seed": spec["config"].get("seed"),
        "checkpoint": job.tags.get(TAG_CHECKPOINT),
        "resources": spec["resources"],
        "workers": job.num_workers if job.attempt else None,
        "after": spec["after"],
        "submitted_ms": job.start_ms,
        "ended_ms": job.end_ms,
        "stop_requested": job.stop_requested,
        "progress": job.progress,
        "metrics": dict(job.metrics),
        "result": job.result or None,
        "attempts": attempts(job),
    }


def attempts(job: Job) -> list[dict[str, Any]]:
    """Return what is known of every attempt, oldest first."""
    found = []
    for number in range(1, job.attempt + 1):
        outcome, verdict = job.outcome(number), job.verdict(number)
        alive = number == job.attempt and job.state is State.RUNNING and not outcome
        found.append(
            {
                "attempt": number,
                "outcome": "running" if alive else outcome.get("outcome", "lost"),
                "class": verdict.get("class", outcome.get("class", "")),
                "reason": verdict.get("reason", outcome.get("reason", "")),
            }
        )
    return found


def details(job: Job, mlflow_url: str) -> list[tuple[str, str]]:
    """Return one job in full, as pairs of label and text.

    Only why it failed may have several lines: in `why`, or in the attempt whose failure it was.
    """
    spec = job.raw_spec
    in_full = {"why"}
    pairs = [
        ("job", job.job_id),
        ("state", job.state.value + (f", {job.phase}" if job.phase else "")),
        ("why", job.reason),
        ("checkpoint", job.tags.get(TAG_CHECKPOINT, "")),
        ("evaluates", spec["description"] if job.kind == "eval" else ""),
        ("question", spec["config"].get("question", "") if job.kind == STUDY else ""),
        ("ablation" if job.kind == STUDY else "recipe", (spec["recipe"] + _overrides(job)).strip()),
        ("study", spec["study"]),
        ("part of", _part_of(job)),
        ("seed", str(spec["config"].get("seed", ""))),
        ("resources", _resources(job)),
        ("priority", str(job.priority)),
        ("after", ", ".join(spec["after"])),
        ("user", job.tags.get("mlflow.user", "")),
        ("commit", _commit(job)),
        ("submitted", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.start_ms / 1000))),
    ]
    pairs += _numbers(job)
    for attempt in attempts(job):
        label, reason = f"attempt {attempt['attempt']}", attempt["reason"]
        words = " ".join(filter(None, (attempt["class"], attempt["outcome"])))
        pairs.append((label, f"{words}: {reason}" if reason else words))
        if reason not in job.reason:  # else all its lines are there
            in_full.add(label)
    pairs += study_status.files(job, mlflow_url)
    pairs.append(("checkpoints", job.tags.get(PREFIX + "checkpoints", "")))
    pairs.append(("files", job.tags.get(PREFIX + "evaluation", "")))
    pairs.append(("in MLflow", evaluation.files(job.result)))
    pairs.append(("in the UI", f"{mlflow_url}/{run_page(job)}"))
    return [
        (label, all_lines(text) if label in in_full else one_line(text))
        for label, text in pairs
        if text
    ]


def _part_of(job: Job) -> str:
    return f"{job.group}, {job.cell}" if job.group and job.cell else job.group


def _resources(job: Job) -> str:
    """Return what an attempt takes; a study takes next to nothing, and only for its report."""
    if job.kind == STUDY:
        return ""
    wanted = job.raw_spec["resources"]
    return f"{_workers(job)}, each {wanted['cpus_per_worker']} CPU, {wanted['gpus_per_worker']} GPU"


def _workers(job: Job) -> str:
    """Return `2 workers`, or `2 to 8 workers, 4 now`."""
    resources = job.raw_spec["resources"]
    most, least = resources["num_workers"], resources.get("min_workers")
    if least is None or least == most:
        return f"{most} workers"
    when = "now" if job.state is State.RUNNING else "last"
    return f"{least} to {most} workers" + (f", {job.num_workers} {when}" if job.attempt else "")


def _numbers(job: Job) -> list[tuple[str, str]]:
    if job.kind == "eval":
        return _evaluation_numbers(job)
    if job.kind == "tune":
        return sweep_status.numbers(job)
    if job.kind == STUDY:
        return study_status.numbers(job)
    pairs = []
    said = job.progress
    if said and not job.state.is_final:
        pairs.append(
            ("progress", f"epoch {said['epoch']}/{said['epochs']}, step {said['global_step']}")
        )
    shown = ("train/loss", "val/loss", "val/top1", "val/top5", "perf/images_per_s")
    pairs += [(key, f"{job.metrics[key]:.6g}") for key in shown if key in job.metrics]
    if job.kind == "train" and job.result:
        best = f"{job.result['best_top1']:.2f} % in epoch {job.result['best_epoch']}"
        pairs.append(("best val/top1", best))
    return pairs


def _evaluation_numbers(job: Job) -> list[tuple[str, str]]:
    said = job.progress
    if said and not job.state.is_final:
        return [("progress", f"batch {said['global_step']}/{said['total_steps']}")]
    return evaluation.numbers(job.metrics)


def _overrides(job: Job) -> str:
    overrides = job.tags.get(PREFIX + "overrides", "")
    return f" with {overrides}" if overrides else ""


def _commit(job: Job) -> str:
    commit = job.tags.get("mlflow.source.git.commit", "")
    dirty = job.tags.get("mlflow.source.git.dirty") == "true"
    return commit[:12] + (" with uncommitted changes" if dirty else "")
