"""`gcpctl tune`: search for good settings of a recipe, as one job."""

import contextlib

import click

from orchestrator.cli.options import complete_recipes
from orchestrator.cli.output import answer, duration, table, talk
from orchestrator.cli.sending import Target, check_beginnings, send, weights_of
from orchestrator.cli.session import connect
from orchestrator.jobs.errors import GcpctlError
from orchestrator.jobs.job import PREFIX, Job
from orchestrator.jobs.plan_tune import Search, TunePlan, TuneRequest, plan_tune
from orchestrator.jobs.ray_jobs import Node
from orchestrator.jobs.recipes import recipe_files
from orchestrator.jobs.source_checks import check_files
from orchestrator.jobs.space import num_trials
from orchestrator.jobs.store import safe_text
from orchestrator.jobs.sweep_options import KIND
from orchestrator.results import sweep_preview
from workloads.config.document import dump_document

_SAMPLES = 5
_PAST_JOBS = 10


def complete_spaces(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the spaces that come with gcpctl and begin so; files complete too."""
    return [name for name in recipe_files(KIND) if name.startswith(incomplete)]


@click.command(no_args_is_help=True)
@click.argument("recipe", shell_complete=complete_recipes)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--space",
    multiple=True,
    metavar="KEY=KIND(...)|FILE|NAME",
    shell_complete=complete_spaces,
    help="What varies; may be given several times.",
)
@click.option("--trials", type=click.IntRange(1, 10_000), help="How many trainings; 20.")
@click.option(
    "--search",
    type=click.Choice(["tpe", "random", "grid"]),
    help="How points are chosen; tpe, which learns from earlier trials.",
)
@click.option(
    "--scheduler",
    metavar="asha|hyperband|median|pbt",
    help="Ends bad trials early; with settings as in 'asha(grace_epochs=2)'.",
)
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    metavar="METRIC[:max|min]",
    help="What is good; val/top1. Up to three give a Pareto front.",
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the search; 0.")
@click.option("--max-parallel", type=click.IntRange(1), help="Most trials at once.")
@click.option(
    "--workers",
    type=click.IntRange(1, 4096),
    help="Training processes of each trial; 1, or as the recipe says where it asks for GPUs.",
)
@click.option("--name", help="The job's id; made up from the recipe when left out.")
@click.option("--priority", type=int, help="Higher starts first; 0 when left out.")
@click.option("--dry-run", is_flag=True, help="Plan, check and show the search, submit nothing.")
@click.option("-f", "--follow", "follow_", is_flag=True, help="Show progress until the job ends.")
def tune(
    recipe: str,
    overrides: tuple[str, ...],
    space: tuple[str, ...],
    trials: int | None,
    search: Search | None,
    scheduler: str | None,
    objectives: tuple[str, ...],
    seed: int,
    max_parallel: int | None,
    workers: int | None,
    name: str | None,
    priority: int | None,
    dry_run: bool,
    follow_: bool,
) -> None:
    """Search for the settings that train RECIPE best.

    Every trial is a training of RECIPE with KEY=VALUE and a point of the space. Kinds of values:
    uniform(low, high), loguniform(low, high), int(low, high), logint(low, high), choice(a, b, c);
    a third number of uniform and int is the step. A condition may follow: if KEY=VALUE.

    The job ends with the best settings as a recipe file, best.yaml, and with what mattered.

    \b
      gcpctl tune digits_resnet_isqrt --space digits --trials 20 --follow
      gcpctl tune digits_resnet_isqrt epochs=10 --scheduler asha \\
        --space 'optim.lr=loguniform(1e-3, 1)' \\
        --space 'model.head.pooling=choice(gap, isqrt, dropcov)' \\
        --space 'model.head.pooling.num_iters=choice(3, 5, 7) if model.head.pooling=isqrt'
      gcpctl tune digits_resnet_isqrt --space digits --objective val/top1 --objective model/macs
    """
    target = Target()
    request = TuneRequest(
        space=space,
        trials=trials,
        search=search,
        scheduler=scheduler,
        objectives=objectives,
        seed=seed,
        max_parallel=max_parallel,
        workers=workers,
        name=name,
        priority=priority,
        resolve_weights=lambda weights: weights_of(weights, ()),
        folder=target.folder,
        nodes=_nodes(target, needed=not dry_run),
    )
    plan = plan_tune(recipe, overrides, request)
    target.check_machine(plan)
    if target.is_local:
        check_files(plan.trial.config, plan.recipe.source)
        if not _ways_to_begin(plan):
            check_beginnings([(plan.recipe.source, plan.trial)])
    if dry_run:
        _show(plan)
        return
    for line in _head(plan):
        talk(line)
    send(target, plan, chosen=name is not None, follow_=follow_)


def _ways_to_begin(plan: TunePlan) -> set[str]:
    """Return what is searched and decides whether a training can begin.

    Trials then begin in many ways, none of which need be the recipe's own: nothing is looked into.
    """
    searched = {dimension.key.partition(".")[0] for dimension in plan.config.space}
    return searched & {"data", "images", "init", "model", "network", "progressive"}


def _nodes(target: Target, *, needed: bool) -> list[Node]:
    """Return the cluster's machines; a look at a search does without a cluster that is away."""
    try:
        return target.nodes()
    except GcpctlError as exc:
        if needed:
            raise
        talk(f"{exc.message}; trials at once are unknown, and 1 is shown")
        return []


def _show(plan: TunePlan) -> None:
    """Print what `--dry-run` promises."""
    answer(f"# {plan.spec.job_id}: {plan.spec.resources.describe()}, study {plan.spec.study}")
    for line in _head(plan):
        answer(line)
    answer()
    header, rows = sweep_preview.sample_rows(plan.config, _SAMPLES)
    answer("the first points:" if plan.config.search == "grid" else "some points:")
    answer(table(tuple(map(str.upper, header)), rows))
    answer()
    answer("# every trial begins from:")
    answer(dump_document(plan.trial.spec.config).rstrip())
    talk("nothing was submitted")


def _head(plan: TunePlan) -> list[str]:
    """Return what is searched, in how many trials, and what that may take."""
    rows = sweep_preview.dimension_rows(plan.config.space)
    lines = [plan.spec.description, table(sweep_preview.DIMENSIONS, rows, width=0)]
    points = sweep_preview.num_points(plan.config.space)
    if points is not None:
        fewer = plan.config.search != "grid" and points < plan.config.num_trials
        ends = f"; the search ends after {points} trials" * fewer
        lines.append(f"the space has {points} point{'s'[: points > 1]}{ends}")
    at_once = plan.num_parallel
    lines.append(
        f"each trial has {plan.config.trial_workers} worker{'s'[: plan.config.trial_workers > 1]}; "
        f"at most {at_once} trial{'s'[: at_once > 1]} at once"
    )
    lines.append(_cost(plan))
    return [*lines, *(f"note: {remark}" for remark in plan.remarks)]


def _cost(plan: TunePlan) -> str:
    """Say what a trial and the search may take, by what trainings of the recipe took."""
    cost = sweep_preview.trial_cost(plan.config, _past_jobs(plan.spec.recipe))
    if cost is None:
        return "cost: unknown, for no training of this recipe has finished here"
    sweep = plan.config
    trial_s = cost.worker_s / sweep.trial_workers
    total_s = sweep_preview.total_worker_s(sweep, cost)
    wall_s = trial_s * -(-num_trials(sweep) // plan.num_parallel)
    less = ", less what is ended early" if sweep.scheduler is not None else ""
    return (
        f"cost: about {duration(trial_s)} a trial and {duration(wall_s)} in all, with "
        f"{plan.num_parallel} at once ({duration(total_s)} of workers{less}), by {cost.jobs} past "
        f"training{'s'[: cost.jobs > 1]} of this recipe"
    )


def _past_jobs(recipe: str) -> list[Job]:
    """Return the newest finished jobs of a recipe; none where there is no cluster to ask."""
    where = f"attributes.status = 'FINISHED' AND tags.`{PREFIX}recipe` = '{safe_text(recipe)}'"
    with contextlib.suppress(GcpctlError):
        return connect().store.search(where, limit=_PAST_JOBS)
    return []
