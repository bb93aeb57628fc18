"""`gcpctl data`: images looked at before training, and packed into shards."""

import dataclasses
import os
import shlex
import time

import click

from orchestrator.cli.options import output_option
from orchestrator.cli.output import answer, answer_json, program, talk
from orchestrator.cli.progress import progress

EXIT_INTERRUPTED = 130
EXIT_UNUSABLE_DATA = 8


class Place(click.ParamType[str]):
    """A local folder, or one in a store; a `~` that the shell has left is a person's home."""

    name = "path"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the path; refuse one that is empty or can name nothing."""
        if not value.strip():
            self.fail("must not be empty; the folder where you are is .", param, ctx)
        if "\0" in value:
            self.fail("holds a NUL, which no path can", param, ctx)
        return os.path.expanduser(value)


@click.group(no_args_is_help=True)
def data() -> None:
    """Check folders of images, and pack them for fast reading."""


@data.command(no_args_is_help=True)
@click.argument("source", metavar="SRC", type=Place())
@click.argument("target", metavar="DST", type=Place())
@click.option(
    "--size",
    "sizes",
    type=click.IntRange(16, 4096),
    multiple=True,
    metavar="N",
    help="Shorter side in pixels; can be given several times.  [default: 256]",
)
@click.option("--original", is_flag=True, help="Also, or only, the images in their own size.")
@click.option(
    "--format",
    "forms",
    type=click.Choice(["jpeg", "decoded"]),
    multiple=True,
    default=("jpeg",),
    show_default=True,
    help="Encoded files or pixels; can be given twice.",
)
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    default=90,
    show_default=True,
    help="JPEG quality of images that are made smaller.",
)
@click.option(
    "--shard-images",
    type=click.IntRange(1, 1_000_000),
    default=1024,
    show_default=True,
    metavar="N",
    help="Images in one shard.",
)
@click.option(
    "--on-bad-image",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="Refuse images that cannot be read, or leave them out.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=50_000_000,
    show_default=True,
    metavar="N",
    help="Larger images are bad.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 512),
    metavar="N",
    help="Processes.  [default: one per processor]",
)
@click.option("--overwrite", is_flag=True, help="Remove the pack that is in DST first.")
@output_option
@click.pass_context
def pack(
    ctx: click.Context,
    source: str,
    target: str,
    sizes: tuple[int, ...],
    original: bool,
    forms: tuple[str, ...],
    quality: int,
    shard_images: int,
    on_bad_image: str,
    max_pixels: int,
    workers: int | None,
    overwrite: bool,
    output: str,
) -> None:
    """Pack the image folder SRC into shards in the folder DST.

    SRC is laid out as SRC/train/CLASS/* and SRC/val/CLASS/*; a local folder, or one in a store
    (s3://bucket/folder, gs://, hdfs://). DST is a local folder: new, empty, or holding a pack.
    Images larger than a size are made smaller, once; others keep their bytes. Every size and
    format gives a variant, such as jpeg-256 or decoded-160.

    Ended at any point and begun again with the same command, it goes on with what is missing.
    Begun again when it is finished, it compares all shards with their checksums and mends them.

    \b
      gcpctl data pack imagenet imagenet-packed
      gcpctl data pack imagenet packed --size 256 --size 160 --format decoded
      gcpctl data pack s3://bucket/birds birds-packed --original --workers 16
    """
    from orchestrator.cli.data_page import render_pack
    from workloads.data.filesystem import local_path
    from workloads.data.pack import PackStep, pack_images
    from workloads.data.pack_manifest import PackOptions, make_variants
    from workloads.data.processes import usable_cpus

    wanted = list(sizes) if sizes or original else [256]
    options = PackOptions(
        variants=make_variants(forms, wanted, original=original),
        quality=quality,
        shard_images=shard_images,
        max_pixels=max_pixels,
    )
    begin = time.monotonic()
    try:
        with progress("packing", "images") as show:

            def report(step: PackStep) -> None:
                show(step.images_done, step.images, f"{step.bad:,} bad" if step.bad else "")

            found = pack_images(
                source,
                target,
                options,
                on_bad_image="skip" if on_bad_image == "skip" else "fail",
                workers=workers or usable_cpus(),
                overwrite=overwrite,
                progress=report,
            )
    except KeyboardInterrupt:
        talk("\nended; the shards that are done are kept. Go on with the same command:")
        again = "" if not overwrite else " (without --overwrite)"
        places = shlex.join((source, target))
        talk(f"  {program()} data pack {places} ...{again}")
        ctx.exit(EXIT_INTERRUPTED)
    if output == "json":
        manifest = found.manifest
        answer_json(
            {
                "path": os.path.abspath(local_path(target)),
                "images": sum(shard.images for shard in manifest.shards),
                "skipped": [name for shard in manifest.shards for name in shard.skipped],
                "classes": list(manifest.classes),
                "shards": len(manifest.shards),
                "shards_written": found.shards_written,
                "variants": {
                    name: sum(file.bytes for file in manifest.stored_files(name))
                    for name in manifest.variant_names()
                },
                "seconds": round(time.monotonic() - begin, 3),
            }
        )
    else:
        answer(render_pack(found, target, time.monotonic() - begin))


@data.command(no_args_is_help=True)
@click.argument("path", metavar="PATH", type=Place())
@click.option(
    "--workers",
    type=click.IntRange(1, 512),
    metavar="N",
    help="Processes.  [default: one per processor]",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=50_000_000,
    show_default=True,
    metavar="N",
    help="Larger images are bad.",
)
@click.option("--classes", "all_classes", is_flag=True, help="Count every class, however many.")
@output_option
@click.pass_context
def check(
    ctx: click.Context,
    path: str,
    workers: int | None,
    max_pixels: int,
    all_classes: bool,
    output: str,
) -> None:
    """Look at every image below PATH, and say what to know before training on it.

    PATH is a folder with train/CLASS/* and val/CLASS/*, or one that `gcpctl data pack` wrote; a
    local folder, or one in a store (s3://bucket/folder). Found are unreadable images, equal files
    (within a split, in both, under several classes), classes that are empty, tiny or only in one
    split, and images of unusual kinds.

    A problem would stop a training, and makes the exit code 8; warnings and notes do not.
    """
    from orchestrator.cli.data_page import render_check
    from workloads.data.check import check_data
    from workloads.data.processes import usable_cpus

    with progress("checking", "images") as show:
        found = check_data(
            path, workers=workers or usable_cpus(), max_pixels=max_pixels, progress=show
        )
    if output == "json":
        answer_json(dataclasses.asdict(found) | {"stops_training": found.stops_training})
    else:
        answer(render_check(found, all_classes=all_classes))
    if found.stops_training:
        ctx.exit(EXIT_UNUSABLE_DATA)
