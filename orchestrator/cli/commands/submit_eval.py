"""`gcpctl submit eval`: judge a checkpoint on held-out images, as a job."""

from pathlib import Path

import click

from orchestrator.cli.options import checkpoint_option, complete_jobs, network_option
from orchestrator.cli.published_weights import look_into, named_network
from orchestrator.cli.sending import Target, send, show_plan
from orchestrator.cli.session import connect
from orchestrator.jobs.checkpoints import (
    ResolvedCheckpoint,
    parse_checkpoint,
    resolve_checkpoint,
)
from orchestrator.jobs.eval_checks import check_evaluation
from orchestrator.jobs.plan_eval import EvalRequest, KnownNetwork, plan_eval


@click.command("eval", no_args_is_help=True)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@checkpoint_option("a file of weights, or a URI of MLflow")
@click.option(
    "--data",
    metavar="FOLDER|NAME",
    help="Images to judge on; of a job's checkpoint those of its training when left out.",
)
@click.option("--split", type=click.Choice(["val", "train"]), help="Which of them; val.")
@click.option(
    "--crops",
    type=click.Choice(["centre", "flip", "ten"]),
    help="Views of each image that are averaged; centre.",
)
@click.option("--batch-size", type=click.IntRange(1), help="Images at once on each worker; 64.")
@network_option
@click.option("--workers", type=click.IntRange(1), help="Processes that share the images; 1.")
@click.option("--name", help="The job's id; made up when left out.")
@click.option("--priority", type=int, help="Higher starts first; 0 when left out.")
@click.option(
    "--after", multiple=True, shell_complete=complete_jobs, help="Start when this job is FINISHED."
)
@click.option("-f", "--follow", "follow_", is_flag=True, help="Show progress until the job ends.")
@click.option("--dry-run", is_flag=True, help="Plan and check, print the config, submit nothing.")
def evaluate(
    overrides: tuple[str, ...],
    checkpoint: str,
    data: str | None,
    split: str | None,
    crops: str | None,
    batch_size: int | None,
    network: str | None,
    workers: int | None,
    name: str | None,
    priority: int | None,
    after: tuple[str, ...],
    follow_: bool,
    dry_run: bool,
) -> None:
    """Evaluate a checkpoint: top-1, top-5, loss, calibration, per class, and every prediction.

    CHECKPOINT is what a job has trained (its best when nothing is said), a published file of
    weights, a `.gcpnet`, or an artifact in MLflow (runs:/RUN_ID/PATH, models:/NAME/VERSION). Data,
    images and network are those of the job; for a file, --data is needed, and the network is told
    from the weights. Any key of the config can be changed: KEY=VALUE.

    The numbers do not depend on --workers; each image counts once.

    \b
      gcpctl submit eval -c k7x2 --follow
      gcpctl submit eval -c k7x2:last --crops ten --workers 2
      gcpctl submit eval -c resnet50.pth --data /data/imagenet
      gcpctl submit eval -c train-birds --after train-birds --data /data/other-birds
    """
    target = Target()
    waits_for = target.exact_ids(after, name)
    found = _resolve(target, checkpoint, waits_for, may_start=not dry_run)
    known = _known_network(target, found, network, overrides)
    options = {"split": split, "crops": crops, "batch_size": batch_size}
    request = EvalRequest(
        data=data,
        options={key: value for key, value in options.items() if value is not None},
        name=name,
        workers=workers,
        priority=priority,
        after=waits_for,
        folder=target.folder,
    )
    plan = plan_eval(found, known, overrides, request)
    target.check_machine(plan)
    if target.is_local:
        check_evaluation(plan, found, known)
    if dry_run:
        show_plan(plan)
        return
    send(target, plan, chosen=name is not None, follow_=follow_)


def _resolve(
    target: Target, text: str, waits_for: tuple[str, ...], *, may_start: bool
) -> ResolvedCheckpoint:
    if parse_checkpoint(text).kind == "file":
        return resolve_checkpoint(None, None, text, folder=target.folder)
    if target.profile is not None and target.is_local and may_start:
        target.bring_up()  # jobs are known by MLflow, which may be down
    session = connect()
    return resolve_checkpoint(session.store, session.profile, text, may_wait=waits_for)


def _known_network(
    target: Target, found: ResolvedCheckpoint, network: str | None, overrides: tuple[str, ...]
) -> KnownNetwork:
    """Return what can be told of the network now; a job's spec tells it all."""
    if found.job is not None:
        if network is not None:
            raise click.BadParameter("a job's checkpoint says its network", param_hint="--network")
        return KnownNetwork()
    if target.is_local and not found.is_remote and not found.is_pending:
        return look_into(Path(found.weights), network, overrides)
    return KnownNetwork() if network is None else named_network(network)
