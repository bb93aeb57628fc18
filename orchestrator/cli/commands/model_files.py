"""`gcpctl model convert` and `export`: networks to and from files."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from orchestrator.cli.child import ask_models
from orchestrator.cli.model_page import render
from orchestrator.cli.options import complete_networks
from orchestrator.cli.output import answer, answer_json, talk

_F = TypeVar("_F", bound=Callable[..., Any])


def source_options(command: _F) -> _F:
    """Add what says which network a file holds, and where to write."""
    for decorate in reversed(
        (
            click.argument("file", type=click.Path()),
            click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]..."),
            click.option("-o", "--output", type=click.Path(), metavar="OUT", help="File to write."),
            click.option("--force", is_flag=True, help="Write over an existing file."),
            click.option(
                "--as",
                "zoo_name",
                metavar="NAME",
                shell_complete=complete_networks,
                help="The network of `gcpctl model list` that it must be.",
            ),
            click.option(
                "--vector-order",
                type=click.Choice(["upper_rows", "upper_columns", "full"]),
                help="Order of the pooled vector that the classifier was trained on.",
            ),
            click.option(
                "--reorder", is_flag=True, help="Sort the classifier's inputs to upper_rows."
            ),
            click.option("--json", "as_json", is_flag=True, help="Write the answer as JSON."),
        )
    ):
        command = decorate(command)
    return command


@click.command(no_args_is_help=True)
@source_options
@click.option("--dry-run", is_flag=True, help="Say what was found and write nothing.")
def convert(as_json: bool, **request: Any) -> None:
    """Make a model file of FILE, with all that is needed to build the network.

    FILE is a published network (torchvision, DeiT, fast-MPN-COV, GCP_Optimization, DropCov; of
    torch.save or safetensors), or what a job has trained: its folder, or one of its checkpoints.
    Backbone, widths and classes are told from names and shapes; what no weight tells is said and
    can be given as KEY=VALUE. Files are read as data: nothing in them is run.

    \b
      gcpctl model convert mpncovresnet50-15991845.pth
      gcpctl model convert checkpoint.pth.tar --as resnet50_dropcov_256 -o dropcov.gcpnet
      gcpctl model convert resnet18.pth head.pooling.num_iters=3 --dry-run
    """
    _finish(ask_models("convert", _listed(request)), as_json=as_json)


@click.command(no_args_is_help=True)
@source_options
@click.option(
    "--format",
    type=click.Choice(["onnx", "torch-export"]),
    required=True,
    help="What to write.",
)
@click.option("--image-size", type=click.IntRange(1), metavar="N", help="Pixels per side.")
@click.option(
    "--batch",
    default="dynamic",
    show_default=True,
    metavar="dynamic|N",
    help="Images per call: any number, or always N.",
)
def export(as_json: bool, batch: str, **request: Any) -> None:
    """Write the network of FILE for another runtime, and check it there.

    FILE is a model file, or anything that `gcpctl model convert` takes. The result is loaded
    again and run on random images; it is kept if its logits are those of the network.

    \b
      gcpctl model export resnet50.gcpnet --format onnx
      gcpctl model export resnet50.gcpnet --format torch-export --image-size 448 --batch 8
    """
    if batch != "dynamic" and not (batch.isdecimal() and int(batch) > 0):
        raise click.BadParameter(
            f"{batch!r} is neither 'dynamic' nor a number", param_hint="--batch"
        )
    images = None if batch == "dynamic" else int(batch)
    _finish(ask_models("export", _listed(request) | {"batch": images}), as_json=as_json)


def _listed(request: dict[str, Any]) -> dict[str, Any]:
    return request | {"overrides": list(request["overrides"])}


def _finish(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        answer_json(found)
        return
    answer(render(found))
    if found["assumed"]:
        talk("What is assumed can be changed: add KEY=VALUE.")
