"""What a search came to: its numbers, the best config as a recipe, and the table of its trials."""

import json
from collections.abc import Mapping
from dataclasses import replace

from cluster.profiles import Profile
from orchestrator.drivers.files import store_file
from orchestrator.drivers.outcome import Outcome
from orchestrator.drivers.report import store_report
from orchestrator.drivers.tracking import patiently
from orchestrator.drivers.tuning.journal import Journal, Trial
from orchestrator.jobs.job import PREFIX, TAG_RESULT, Job
from orchestrator.jobs.store import JobStore, MetricPoint
from orchestrator.results.sweep import SweepTrial, best_trial, result, trials_csv
from orchestrator.results.sweep_importance import importance
from orchestrator.results.sweep_page import render_sweep
from orchestrator.results.sweep_recipe import FILE, best_recipe
from orchestrator.results.sweep_report import gather_sweep
from workloads.config.sweep import SweepConfig
from workloads.worker.paths import JobPaths

_TABLE = "trials.csv"


def as_result(trial: Trial, run_id: str = "") -> SweepTrial:
    """Return a trial as results see it."""
    return SweepTrial(
        number=trial.number,
        values=dict(trial.values),
        metrics=trial.metrics,
        ending=trial.end or "running",
        epochs=trial.epoch,
        seconds=trial.seconds,
        reason=trial.reason if trial.end in ("pruned", "failed") else "",
        run_id=run_id,
    )


def sweep_points(sweep: SweepConfig, journal: Journal) -> list[MetricPoint]:
    """Return the sweep's own metrics as they stand: the best so far, and how many have ended.

    Their step is the number of trials that have ended, their time that of the newest end.
    """
    ended = [trial for trial in list(journal.trials.values()) if trial.end is not None]
    if not ended:
        return []
    step, time_ms = len(ended), max(trial.ended_ms for trial in ended)
    numbers: dict[str, float] = {}
    best = best_trial(map(as_result, ended), sweep.objectives)
    if best is not None:
        for objective in sweep.objectives:
            if objective.metric in best.metrics:
                name = objective.metric.replace("/", "_")
                numbers[f"tune/best_{name}"] = best.metrics[objective.metric]
    numbers |= {
        "tune/trials": len(ended),
        "tune/pruned": sum(trial.end == "pruned" for trial in ended),
        "tune/failed": sum(trial.end == "failed" for trial in ended),
        # What the controller counts as getting ahead: it earns a job new retries.
        "progress/epoch": len(ended),
    }
    return [(key, float(value), time_ms, step) for key, value in numbers.items()]


def conclude(
    profile: Profile,
    job: Job,
    sweep: SweepConfig,
    journal: Journal,
    paths: JobPaths,
    run_ids: Mapping[int, str],
) -> Outcome:
    """Store what a search found and say it in a sentence. Doing it again changes nothing.

    Args:
        run_ids: Number of a trial -> its run in MLflow.
    """
    ordered = [journal.trials[number] for number in sorted(journal.trials)]
    trials = [as_result(trial, run_ids.get(trial.number, "")) for trial in ordered]
    best = best_trial(trials, sweep.objectives)
    if best is None:
        failed = next((trial for trial in trials if trial.ending == "failed"), None)
        why = f"; {failed.name}: {failed.reason}" if failed is not None else ""
        return Outcome.failed("user", f"none of {len(trials)} trials finished with a result{why}")
    spec = job.spec
    found = result(sweep, trials, spec.resources, importance(sweep, trials))
    recipe = best_recipe(sweep, best, job_id=job.job_id, study=spec.study, resources=spec.resources)
    store = JobStore.of(profile)
    for name, text in ((FILE, recipe), (_TABLE, trials_csv(sweep, trials))):
        place = paths.root / name
        place.write_text(text)
        store_file(store, job, name, text.encode(), place=place)
    first = sweep.objectives[0].metric
    reason = f"best of {len(trials)} trials: {best.name}, {first} {best.metrics[first]:.4g}"
    tags = {
        TAG_RESULT: json.dumps(found, ensure_ascii=False),
        PREFIX + "best_trial": best.run_id or best.name,
    }
    told = replace(job, tags={**job.tags, **tags})
    report = patiently(lambda: gather_sweep(store, told))
    store_report(store, job, render_sweep(report), paths)
    return Outcome(kind="finished", reason=reason, tags=tags)
