"""`gcpctl submit`: plan, check, record; the controller does the rest."""

from functools import partial

import click

from orchestrator.cli.commands.submit_ablation import ablation
from orchestrator.cli.commands.submit_eval import evaluate
from orchestrator.cli.options import WorkersType, complete_jobs, complete_recipes
from orchestrator.cli.sending import Target, check_beginnings, send, show_plan, weights_of
from orchestrator.jobs import plan as planning
from orchestrator.jobs.source_checks import check_files


@click.group(no_args_is_help=True)
def submit() -> None:
    """Submit a job; it runs on without this terminal."""


@submit.command(no_args_is_help=True)
@click.argument("recipe", shell_complete=partial(complete_recipes, kind="train"))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--dry-run", is_flag=True, help="Plan and check, print the config, submit nothing.")
@click.option("-f", "--follow", "follow_", is_flag=True, help="Show progress until the job ends.")
@click.option("--name", help="The job's id; made up from the recipe when left out.")
@click.option(
    "--workers",
    type=WorkersType(),
    help="Data-parallel training processes; MIN:MAX takes what is free, at least MIN.",
)
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
    workers: int | tuple[int, int] | None,
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
      gcpctl submit train folder_resnet18_isqrt data.path=/data/birds --workers 2:8
    """
    target = Target()
    ids = target.exact_ids(after, name)
    request = planning.Request(
        name=name,
        workers=workers,
        priority=priority,
        seed=seed,
        smoke=smoke,
        after=ids,
        resolve_weights=lambda weights: weights_of(weights, ids),
        folder=target.folder,
    )
    plan = planning.plan_train(recipe, overrides, request)
    target.check_machine(plan)
    if target.is_local:
        check_files(plan.config, plan.recipe.source)
        check_beginnings([(plan.recipe.source, plan)])
    if dry_run:
        show_plan(plan)
        return
    send(target, plan, chosen=name is not None, follow_=follow_)


submit.add_command(evaluate)
submit.add_command(ablation)
