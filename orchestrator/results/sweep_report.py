"""All that a sweep's report shows, gathered from the store, and its files."""

from dataclasses import dataclass

from orchestrator.jobs.job import Job
from orchestrator.jobs.store import JobStore
from orchestrator.results.study_facts import commit_text, date
from orchestrator.results.sweep import (
    Cost,
    Importance,
    Share,
    SweepTrial,
    best_trial,
    cost,
    pareto_front,
    trial_of,
)
from orchestrator.results.sweep_recipe import best_recipe
from workloads.config.sweep import SweepConfig


@dataclass(frozen=True)
class SweepReport:
    """A sweep with its trials.

    Attributes:
        best: By the first objective; None while no trial has finished with a number.
        recipe: The best trial's config as a recipe file; empty without a best.
        front: The trials that no other beats in all objectives; empty for one objective.
        importance: As the sweep's driver computed it at the end.
        began, ended: Dates in UTC, `ended` that of the newest end of a trial; empty before.
    """

    job_id: str
    recipe_name: str
    state: str
    is_final: bool
    sweep: SweepConfig
    trials: tuple[SweepTrial, ...]
    best: SweepTrial | None
    recipe: str
    front: tuple[SweepTrial, ...]
    importance: Importance
    cost: Cost
    commit: str
    began: str
    ended: str


def gather_sweep(store: JobStore, job: Job) -> SweepReport:
    """Read a sweep from the store.

    Args:
        job: A job of kind `tune`.
    """
    sweep = SweepConfig.model_validate(job.raw_spec["config"])
    runs = store.trials(job.job_id, experiments=[job.experiment_id])
    trials = tuple(sorted(map(trial_of, runs), key=lambda trial: trial.number))
    best, resources = best_trial(trials, sweep.objectives), job.spec.resources
    recipe = ""
    if best is not None:
        study = job.raw_spec["study"]
        recipe = best_recipe(sweep, best, job_id=job.job_id, study=study, resources=resources)
    several = len(sweep.objectives) > 1
    # The sweep's own driver writes the report just before the job is closed.
    is_final = job.state.is_final or bool(job.result)
    ends = [run.end_ms for run in runs if run.end_ms]
    return SweepReport(
        job_id=job.job_id,
        recipe_name=job.raw_spec["recipe"],
        state=job.state.value,
        is_final=is_final,
        sweep=sweep,
        trials=trials,
        best=best,
        recipe=recipe,
        front=tuple(pareto_front(trials, sweep.objectives)) if several else (),
        importance=_importance(job),
        cost=cost(sweep, trials, resources),
        commit=commit_text(job),
        began=date(job.start_ms),
        ended=date(max(ends)) if is_final and ends else "",
    )


def _importance(job: Job) -> Importance:
    shares = job.result.get("importance") or {}
    remark = str(job.result.get("importance_remark", ""))
    return Importance(tuple(Share(str(k), float(v), 0) for k, v in shares.items()), remark)
