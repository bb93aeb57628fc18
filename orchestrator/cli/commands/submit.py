"""`gcpctl submit`: plan, check, record; the controller does the rest."""

import sys
from pathlib import Path

import click

from cluster import local
from cluster.profiles import load_profile
from orchestrator.cli.follow import follow
from orchestrator.cli.options import complete_jobs, complete_recipes
from orchestrator.cli.output import answer, program, talk
from orchestrator.cli.session import Session, connect
from orchestrator.jobs import plan as planning
from orchestrator.jobs.errors import ConflictError, GcpctlError, JobExistsError
from orchestrator.jobs.job import Job
from orchestrator.jobs.provenance import Provenance, collect
from orchestrator.jobs.ray_jobs import Node
from orchestrator.jobs.submit import attach_provenance, record
from workloads.config.data import ImageFolderConfig
from workloads.config.document import dump_document
from workloads.config.train import TrainConfig

_IMAGES_CHECKED_AT_SUBMIT = 2000


@click.group(no_args_is_help=True)
def submit() -> None:
    """Submit a job; it runs on without this terminal."""


@submit.command(no_args_is_help=True)
@click.argument("recipe", shell_complete=complete_recipes)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--dry-run", is_flag=True, help="Plan and check, print the config, submit nothing.")
@click.option("-f", "--follow", "follow_", is_flag=True, help="Show progress until the job ends.")
@click.option("--name", help="The job's id; made up from the recipe when left out.")
@click.option("--workers", type=click.IntRange(1), help="Data-parallel training processes.")
@click.option("--priority", type=int, help="Higher starts first; 0 when left out.")
@click.option("--seed", type=click.IntRange(0), help="Seed of everything random.")
@click.option(
    "--after", multiple=True, shell_complete=complete_jobs, help="Start when this job is FINISHED."
)
@click.option("--smoke", is_flag=True, help="One epoch of four steps, in the study `smoke`.")
def train(
    recipe: str,
    overrides: tuple[str, ...],
    dry_run: bool,
    follow_: bool,
    name: str | None,
    workers: int | None,
    priority: int | None,
    seed: int | None,
    after: tuple[str, ...],
    smoke: bool,
) -> None:
    """Train the network of RECIPE, a recipe's name or a YAML file.

    Any key of the config can be changed: KEY=VALUE with dots between the levels.

    \b
      gcpctl submit train digits_resnet_isqrt --follow
      gcpctl submit train digits_resnet_isqrt optim.lr=0.05 model.head.pooling.num_iters=3
      gcpctl submit train folder_resnet18_isqrt data.path=/data/birds --workers 2
    """
    profile = load_profile()
    is_local = profile is None or profile.nudge_path is not None
    request = planning.Request(
        name=name,
        workers=workers,
        priority=priority,
        seed=seed,
        smoke=smoke,
        after=_exact_ids(after, name) if after else (),
        folder=Path.cwd() if is_local else None,
    )
    plan = planning.plan_train(recipe, overrides, request)
    if is_local:
        cpus, gpus = local.plan_resources()
        nodes = [Node(cpus=cpus, gpus=gpus)]
        planning.check_feasible(plan.spec.resources, nodes, where="this machine")
        _check_images(plan.config)
    if dry_run:
        answer(f"# {plan.spec.job_id}: {plan.spec.resources.describe()}, study {plan.spec.study}")
        answer(f"# config sha256 {plan.config_sha256}")
        answer(dump_document(plan.spec.config).rstrip())
        talk("nothing was submitted")
        return
    if is_local:
        profile = local.up(say=talk)
    assert profile is not None
    session = Session(profile)
    planning.check_feasible(plan.spec.resources, session.ray.nodes(), where="the cluster")
    provenance = collect(sys.argv[1:])
    job, plan = _record(session, plan, provenance, chosen=name is not None)
    session.nudge()
    talk(f"submitted {job.job_id}: {plan.spec.resources.describe()}; this terminal may be closed")
    try:
        attach_provenance(session.store, job, plan, provenance)
    except GcpctlError as exc:
        talk(f"the job runs, but its config.yaml or diff could not be stored: {exc.message}")
    if follow_:
        sys.exit(follow(session, job))
    answer(job.job_id)
    for command in (f"status {job.job_id}", f"logs {job.job_id} -f", "ui"):
        talk(f"  {program()} {command}")


def _record(
    session: Session, plan: planning.Plan, provenance: Provenance, *, chosen: bool
) -> tuple[Job, planning.Plan]:
    """Record the job; draw another id in the rare case that the one made up is taken."""
    while True:
        try:
            job = record(session.store, plan, provenance, cluster=session.profile.name)
            return job, plan
        except JobExistsError:
            if chosen:
                raise
            plan = plan.with_new_id()
        except KeyboardInterrupt:
            talk(f"\ninterrupted; if it was recorded already: gcpctl stop {plan.spec.job_id}")
            raise


def _exact_ids(after: tuple[str, ...], name: str | None) -> tuple[str, ...]:
    """Return the full ids of the jobs to wait for; each must exist now."""
    store = connect().store
    found = tuple(store.find(part).job_id for part in after)
    if name in found:
        raise ConflictError(f"{name} cannot run after itself")
    return found


def _check_images(config: TrainConfig) -> None:
    """Meet missing folders and broken images before anything is recorded.

    Only where the cluster is this machine: another one may see other folders. All images of a
    large set would take too long; the workers check those before they train.
    """
    if not isinstance(config.data, ImageFolderConfig):
        return
    from workloads.data.scan import check_images, scan_image_folder

    index = scan_image_folder(config.data.path)
    if config.data.check_images:
        check_images(
            index,
            max_pixels=config.data.max_pixels,
            on_bad_image=config.data.on_bad_image,
            limit=_IMAGES_CHECKED_AT_SUBMIT,
        )
