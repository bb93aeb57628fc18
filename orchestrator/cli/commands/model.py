"""`gcpctl model`: the networks there are, and what one of them consists of."""

from collections.abc import Sequence
from typing import Any

import click

from orchestrator.cli.child import ask_models
from orchestrator.cli.commands.model_files import convert, export
from orchestrator.cli.network_page import align_right, describe, render
from orchestrator.cli.networks import complete_networks, find_network
from orchestrator.cli.options import output_option
from orchestrator.cli.output import answer, answer_json, table, talk
from workloads.config.zoo import ZooEntry, load_zoo
from workloads.models.published import best_of, results_of


@click.group(no_args_is_help=True)
def model() -> None:
    """List and show networks; convert and export trained ones."""


@model.command("list")
@click.option("--match", metavar="TEXT", help="Only names that contain TEXT.")
@click.option("--counts", is_flag=True, help="Count parameters and multiply-adds; takes longer.")
@output_option
def list_(match: str | None, counts: bool, output: str) -> None:
    """List the named networks and the best published top-1 of each.

    TOP-1 is on ImageNet's validation images, one centre crop, in percent; SCHEDULE is the
    learning-rate schedule it was reached with. `gcpctl model show NAME` has all of them.
    """
    entries = [entry for entry in load_zoo().values() if match is None or match in entry.name]
    if not entries:
        talk(f"no network's name contains {match!r}")
    found = [_summary(entry) for entry in entries]
    if counts and entries:
        if len(entries) > 20:
            talk(f"counting {len(entries)} networks takes a while; --match TEXT counts fewer")
        requests = [find_network(entry.name).request() for entry in entries]
        counted = ask_models("count", {"networks": requests})["counts"]
        found = [counts | item for counts, item in zip(counted, found, strict=True)]
    if output == "json":
        answer_json(found)
    elif found:
        answer(_list_table(found, counts=counts))


def _summary(entry: ZooEntry) -> dict[str, Any]:
    best = best_of(results_of(entry.name))
    head = entry.model.head
    alone = head.class_token == "only"  # then nothing is pooled
    return {
        "name": entry.name,
        "backbone": entry.model.backbone.name,
        "pooling": None if alone else head.pooling.name,
        "reduced_channels": None if alone else head.reduced_channels,
        "image_size": entry.image_size,
        "in_channels": entry.in_channels,
        "num_classes": entry.num_classes,
        "positions": 0 if alone else entry.model.num_positions(entry.image_size),
        "published_top1": best.top1 if best else None,
        "published_lr_mode": best.lr_mode if best else None,
    }


def _list_table(found: Sequence[dict[str, Any]], *, counts: bool) -> str:
    header = ["NAME", "IMAGE", "POSITIONS"]
    if counts:
        header += ["VECTOR", "M PARAM", "GMACS"]
    rows = []
    for item in found:
        row = [item["name"], str(item["image_size"]), str(item["positions"] or "-")]
        if counts:
            row += [
                f"{item['vector_width']:,}" if item["vector_width"] else "-",
                f"{item['parameters'] / 1e6:.2f}",
                f"{item['macs'] / 1e9:.3f}",
            ]
        top1 = item["published_top1"]
        row.append("-" if top1 is None else f"{top1:.2f}")
        rows.append([*row, item["published_lr_mode"] or "-"])
    header.append("TOP-1")
    return table(*align_right((*header, "SCHEDULE"), rows, range(1, len(header))))


@model.command(no_args_is_help=True)
@click.argument("name", shell_complete=complete_networks)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--image-size", type=click.IntRange(1), metavar="N", help="Pixels per side.")
@click.option("--classes", type=click.IntRange(1), metavar="K", help="Width of the logits.")
@output_option
def show(
    name: str,
    overrides: tuple[str, ...],
    image_size: int | None,
    classes: int | None,
    output: str,
) -> None:
    """Show the stages, counts and published results of network NAME.

    NAME is a network of `gcpctl model list`, a recipe, or the path of a recipe file. Any key of
    the network can be changed: KEY=VALUE with dots between the levels.

    \b
      gcpctl model show resnet50_isqrt_256
      gcpctl model show resnet50_isqrt_256 head.reduced_channels=128 backbone.last_stride=2
      gcpctl model show deit_small --image-size 384 backbone.image_size=384
    """
    network = find_network(name, overrides, image_size=image_size, num_classes=classes)
    found = describe(network)
    if output == "json":
        answer_json(found)
    else:
        answer(render(found))


model.add_command(convert)
model.add_command(export)
