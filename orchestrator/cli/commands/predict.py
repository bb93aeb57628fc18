"""`gcpctl predict`: what a network says of some images, here and now."""

from pathlib import Path
from typing import Any

import click

from cluster.profiles import load_profile
from orchestrator.cli.child import ask
from orchestrator.cli.options import checkpoint_option, network_option, output_option
from orchestrator.cli.output import answer, answer_json, table, talk
from orchestrator.cli.published_weights import named_network
from orchestrator.cli.session import connect
from orchestrator.jobs.checkpoints import (
    find_checkpoint,
    parse_checkpoint,
    parse_pending,
    resolve_checkpoint,
)
from orchestrator.jobs.errors import EXIT_USAGE, GcpctlError, NotFoundError, UnreachableError
from workloads.data.errors import printable

EXIT_SOME_UNANSWERED = EXIT_USAGE


@click.command(no_args_is_help=True)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path())
@checkpoint_option("or a file of weights")
@click.option(
    "--top",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="How many classes to name for each image.",
)
@network_option
@output_option
def predict(
    images: tuple[str, ...], checkpoint: str, top: int, network: str | None, output: str
) -> None:
    """Name the likeliest classes of images, on this machine and without the cluster.

    IMAGE is a file, or a folder whose images are all taken. They are resized and cut as in the
    network's training. A JOB's checkpoints must lie on a path that is seen from here.

    An image that cannot be read, or to which the network gives no finite answer, is named, and
    makes the exit code 2; the others are answered.

    \b
      gcpctl predict bird.jpg --checkpoint k7x2
      gcpctl predict photos/ -c resnet50.pth --top 3
    """
    if not all(images):
        raise click.BadParameter("a path is empty", param_hint="IMAGE")
    weights = _weights(checkpoint)
    request: dict[str, Any] = {"weights": str(weights), "images": list(images), "top": top}
    if network is not None:
        if weights.is_dir():
            raise click.BadParameter("a checkpoint says its network itself", param_hint="--network")
        known = named_network(network)
        request["model"] = known.model.model_dump(mode="json") if known.model else None
        request["images_config"] = known.images.model_dump(mode="json") if known.images else None
    found = ask("workloads.evaluation", "predict", request)
    if output == "json":
        answer_json(found)
    else:
        talk(found["network"])
        if found["images"]:
            answer(_table(found))
        for error in found["errors"]:
            talk(printable(f"{error['path']}: {error['message']}"))
    if found["errors"]:
        click.get_current_context().exit(EXIT_SOME_UNANSWERED)


def _weights(text: str) -> Path:
    """Return the path of a checkpoint; a job's is found on the storage, cluster up or not."""
    asked = parse_checkpoint(text)
    if asked.kind == "file":
        return Path(resolve_checkpoint(None, None, text, folder=Path.cwd()).weights)
    if asked.kind == "mlflow":
        raise GcpctlError(
            "predict reads files and the checkpoints of jobs, nothing from MLflow",
            f"evaluate it on the cluster: gcpctl submit eval --checkpoint {text}",
            exit_code=EXIT_USAGE,
        )
    profile = load_profile()
    try:
        session = connect()
        found = resolve_checkpoint(session.store, session.profile, text)
    except UnreachableError:
        # The cluster is down; its storage is on this machine, and a full id is a folder's name.
        folder = None if profile is None else profile.storage_path / asked.name
        if folder is None or not folder.is_dir():
            raise
        return find_checkpoint(folder, asked.which)
    if parse_pending(found.weights) is not None:
        raise NotFoundError(
            f"the checkpoints of {asked.name} lie on {session.profile.storage_path}, which cannot "
            "be seen from here",
            f"evaluate it there: gcpctl submit eval --checkpoint {text}",
        )
    return Path(found.weights)


def _table(found: dict[str, Any]) -> str:
    """Return one line per image and class; an image's name stands in its first line only."""
    rows = []
    for image in found["images"]:
        for number, guess in enumerate(image["predictions"]):
            name = printable(image["path"]) if number == 0 else ""
            probability = f"{100 * guess['probability']:6.2f} %"
            rows.append((name, probability, printable(str(guess["class"]))))
    label = "CLASS" if found["classes_known"] else "CLASS NUMBER"
    return table(("IMAGE", "PROBABILITY", label), rows)
