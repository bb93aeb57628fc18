"""`gcpctl recipes best`: the best settings of a sweep as a recipe."""

import click

from orchestrator.cli.options import complete_jobs
from orchestrator.cli.output import answer, talk
from orchestrator.cli.session import connect
from orchestrator.jobs.errors import ConflictError, NotFoundError
from orchestrator.jobs.job import Job
from orchestrator.jobs.store import JobStore


@click.command(no_args_is_help=True)
@click.argument("sweep", shell_complete=complete_jobs)
def best(sweep: str) -> None:
    """Print the best settings that SWEEP, a job of `tune`, has found, as a recipe.

    It trains what the best trial trained. A sweep that still runs gives its best so far.

    \b
      gcpctl recipes best tune-digits-k7x2 > best.yaml
      gcpctl submit train best.yaml seed=1
    """
    store = connect().store
    job = store.find(sweep)
    if job.kind != "tune":
        raise ConflictError(f"{job.job_id} is a job of kind {job.kind}, not a sweep")
    answer(_text(store, job).rstrip())


def _text(store: JobStore, job: Job) -> str:
    from orchestrator.results.sweep import best_trial, trial_of
    from orchestrator.results.sweep_recipe import FILE, best_recipe
    from workloads.config.sweep import SweepConfig

    if job.result:
        try:
            return store.read_artifact(job, FILE).decode()
        except NotFoundError:
            pass  # deleted by somebody; it follows from the trials
    config = SweepConfig.model_validate(job.raw_spec["config"])
    trials = [trial_of(run) for run in store.trials(job.job_id, experiments=[job.experiment_id])]
    found = best_trial(trials, config.objectives)
    if found is None:
        raise NotFoundError(
            f"no trial of {job.job_id} has finished yet", f"see: gcpctl status {job.job_id}"
        )
    if not job.state.is_final:
        talk(f"{job.job_id} still runs: {found.name} is its best so far")
    return best_recipe(
        config,
        found,
        job_id=job.job_id,
        study=job.raw_spec["study"],
        resources=job.spec.resources,
    )
