"""What `gcpctl data` prints: a check and a pack, for people."""

import shlex
import statistics
from collections.abc import Mapping
from os.path import abspath

import click

from orchestrator.cli.network_page import align_right
from orchestrator.cli.output import duration, program, table, wants_colour
from workloads.data.check_report import CheckReport, Finding
from workloads.data.errors import printable
from workloads.data.filesystem import local_path
from workloads.data.pack_folder import PackReport

_COLOURS = {"problem": "red", "warning": "yellow", "note": "cyan"}
_MOST_CLASSES = 10
_MOST_EXAMPLES = 5
_FORMS = {"image_folder": "an image folder", "packed": "packed images"}


def render_check(report: CheckReport, *, all_classes: bool) -> str:
    """Return a check's answer; every class has a row where there are few, or if asked for."""
    classes = len({name for of_class in report.counts.values() for name in of_class})
    inside = f" in {classes:,} {'class' if classes == 1 else 'classes'}"
    inside = inside if classes else ""  # unknown of a pack that is damaged
    noun = "image" if report.images == 1 else "images"
    head = (
        f"{printable(report.path)}: {_FORMS[report.form]}, {report.images:,} {noun}{inside}, "
        f"{amount(report.bytes)}"
    )
    parts = [head]
    if classes:
        parts.append(_splits(report.counts))
    if all_classes or 0 < classes <= _MOST_CLASSES:
        parts.append(_classes(report.counts))
    if report.size_range:
        sides = (
            f"{name} {low} to {high} pixels (median {middle})"
            if low < high
            else f"{name} {low} pixels"
            for name, (low, middle, high) in report.size_range.items()
        )
        parts.append(", ".join(sides))
    parts.append("\n".join(map(_finding, report.findings)) or "nothing unusual was found")
    return "\n\n".join(parts)


def _splits(counts: Mapping[str, Mapping[str, int]]) -> str:
    rows = []
    for split, of_class in counts.items():
        numbers = sorted(of_class.values())
        if not numbers:
            rows.append([split, "0", "0", "-", "-", "-"])
            continue
        middle = f"{statistics.median(numbers):,g}"
        ends = f"{numbers[0]:,}", middle, f"{numbers[-1]:,}"
        rows.append([split, f"{sum(numbers):,}", f"{len(numbers):,}", *ends])
    header = ("SPLIT", "IMAGES", "CLASSES", "SMALLEST CLASS", "MEDIAN", "LARGEST")
    return table(*align_right(header, rows, range(1, len(header))))


def _classes(counts: Mapping[str, Mapping[str, int]]) -> str:
    names = sorted({name for of_class in counts.values() for name in of_class})
    rows = [
        [
            *(f"{counts[split][name]:,}" if name in counts[split] else "-" for split in counts),
            printable(name),
        ]
        for name in names
    ]
    header = [*(split.upper() for split in counts), "CLASS"]
    return table(*align_right(header, rows, range(len(counts))))


def _finding(finding: Finding) -> str:
    mark = f"{finding.level:<8}"
    if wants_colour():
        mark = click.style(mark, fg=_COLOURS[finding.level])
    shown = finding.examples[:_MOST_EXAMPLES]
    if finding.level == "note":
        shown = shown[:2]
    lines = [f"{mark} {finding.text}", *(f"           {printable(example)}" for example in shown)]
    if shown and finding.count > len(shown):
        lines.append(f"           and {finding.count - len(shown):,} more")
    return "\n".join(lines)


def render_pack(report: PackReport, target: str, seconds: float) -> str:
    """Return what was packed, and how to train on it."""
    manifest = report.manifest
    rows = []
    for variant in manifest.variant_names():
        files = manifest.stored_files(variant)
        size = sum(file.bytes for file in files)
        images = sum(shard.images for shard in manifest.shards)
        each = amount(size / images)
        rows.append([variant, f"{images:,}", f"{len(manifest.shards):,}", amount(size), each])
    header = ("VARIANT", "IMAGES", "SHARDS", "SIZE", "PER IMAGE")
    found = table(*align_right(header, rows, range(1, len(header))))
    skipped = sum(len(shard.skipped) for shard in manifest.shards)
    kept = len(manifest.shards) - report.shards_written
    if report.shards_written == 0:
        did = "all shards were there and have their checksums"
    else:
        noun = "shard" if report.shards_written == 1 else "shards"
        did = f"{report.shards_written:,} {noun} written in {duration(seconds)}"
        did += f", {kept:,} had been there" if kept else ""
    did += f"; bad images left out: {skipped:,}" if skipped else ""
    chosen = manifest.variant_names()
    which = f" data.variant={chosen[0]}" if len(chosen) > 1 else ""
    place = shlex.quote(f"data.path={abspath(local_path(target))}")
    use = f"{program()} submit train RECIPE data.name=packed {place}{which}"
    return f"{found}\n\n{did}\ntrain on it: {use}"


def amount(count: float) -> str:
    """Return a number of bytes as people say it: `24.1 KB`, `3.2 GB`."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
