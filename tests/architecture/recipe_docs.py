"""Writes docs/published.md from recipes and tables: `make docs`. A test holds the page to them."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from orchestrator.jobs.plan import Plan, Request, plan_train
from orchestrator.jobs.recipes import recipe_files
from workloads.models.published import NOT_COVERED, PublishedResult, read_published

TARGET = Path(__file__).resolve().parents[2] / "docs" / "published.md"

ALIASES = {
    ("ResNet-18", "Fast-MPN-earlier-run", "step-30"): "imagenet_resnet18_isqrt_seed",
    ("ResNet-34", "Fast-MPN-earlier-run", "step-30"): "imagenet_resnet34_isqrt_seed",
    ("ResNet-50", "GAP", ""): "imagenet_resnet50_gap_seed",
    ("ResNet-101", "iSQRT-256", ""): "imagenet_resnet101_isqrt_fast_mpn_cov",
}
"""Rows that are another run of what a recipe reproduces: (model, pooling, schedule) -> recipe."""

_PATHS = ("data.path=/images", "init.weights=/weights.pth")
"""What recipes ask for, so that they can be planned here."""

_HEAD = """# Published results and their recipes

Written by `make docs` from `workloads/models/published_results.csv` and the recipes; do not edit.

Accuracies are the sources', in percent, on ImageNet's 50,000 validation images with one centre crop
unless the row says `10crop`; none of the sources gives a deviation. **None of them has been
reproduced here yet**: that takes GPUs. What tests hold is that a recipe has the source's network,
preprocessing, schedule and optimizer.

    gcpctl submit train RECIPE data.path=/data/imagenet          # train/<class>/*, val/<class>/*
    gcpctl submit train RECIPE data=packed data.path=/data/packed data.loader_workers=8   # shards
    gcpctl submit eval --checkpoint JOB:best                     # ten crops: --crops ten

Every recipe keeps its global batch at any `--workers N`. It asks for GPUs, and runs without them
under `job.gpus_per_worker=0`.

"""


@cache
def plan(recipe: str) -> Plan:
    """Plan a shipped recipe with stand-ins for the paths that it asks for."""
    missing = [path for path in _PATHS if _asks_for(recipe, path.partition("=")[0])]
    return plan_train(recipe, missing, Request())


def _asks_for(recipe: str, key: str) -> bool:
    finegrained = recipe.startswith(("cub_", "aircraft_", "cars_"))
    if key == "init.weights":
        return finegrained
    return finegrained or recipe.startswith(("imagenet_", "cifar10_", "folder_"))


@cache
def recipe_of_rows() -> dict[tuple[str, str, str], str]:
    """Return (model, pooling, schedule) as the tables print them -> recipe."""
    found = dict(ALIASES)
    for recipe in recipe_files("train"):
        published = plan(recipe).spec.published
        if published is not None and published.model:
            row = (published.model, published.pooling, published.lr_mode)
            assert row not in found, f"{recipe} and {found.get(row)} both claim {row}"
            found[row] = recipe
    return found


def recipe_of(row: PublishedResult) -> str | None:
    """Return the recipe that reproduces a row, or None where no network of ours is the row's."""
    pooling = row.pooling.removesuffix("-10crop")
    return recipe_of_rows().get((row.model, pooling, row.lr_mode))


def render() -> str:
    """Return the whole page."""
    return _HEAD + "\n".join([*_imagenet(), "", *_others(), "", *_not_covered()]) + "\n"


def _imagenet() -> Iterator[str]:
    yield "## ImageNet"
    yield ""
    yield "| network | pooling | schedule | top-1 | top-5 | epochs | recipe | source |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in read_published():
        recipe = recipe_of(row)
        if recipe is not None:
            top5 = "" if row.top5 is None else f"{row.top5:.2f}"
            yield (
                f"| {row.model} | {row.pooling} | {row.lr_mode} | {row.top1:.2f} | {top5} "
                f"| {row.epochs or ''} | `{recipe}` | {row.source} |"
            )


def _others() -> Iterator[str]:
    yield "## Birds, aircraft, cars, and what has no published number"
    yield ""
    yield "| recipe | published top-1 | what |"
    yield "|---|---|---|"
    for recipe in recipe_files("train"):
        spec = plan(recipe).spec
        published = spec.published
        if published is not None and published.model:
            continue
        number = "" if published is None or published.top1 is None else f"{published.top1:.1f}"
        what = spec.description if published is None else published.describe()
        yield f"| `{recipe}` | {number} | {what} |"


def _not_covered() -> Iterator[str]:
    yield "## Rows without a recipe"
    yield ""
    for (model, pooling), reason in NOT_COVERED.items():
        yield f"- {model}, {pooling}: {reason}."


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
