"""A pack looked at: whether its files are whole, and which images they hold. Needs no torch."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from workloads.data.check_report import (
    CheckReport,
    Finding,
    class_findings,
    duplicate_findings,
    finding_about,
    in_order_of_level,
    size_range_of,
)
from workloads.data.filesystem import explained
from workloads.data.pack_manifest import Manifest, read_manifest
from workloads.data.pack_verify import (
    REPAIR,
    find_damaged,
    find_wrong_sizes,
    read_indexes,
)
from workloads.data.scan import SPLITS

if TYPE_CHECKING:
    from pyarrow import fs


def check_packed(
    filesystem: "fs.FileSystem", root: str, path: str, progress: Callable[[int, int], None]
) -> CheckReport:
    begin = time.monotonic()
    manifest = read_manifest(filesystem, root, path)
    manifest.refuse_unusable(path)
    files = manifest.stored_files()
    done = 0

    def tick(count: int = 1) -> None:
        nonlocal done
        done += count
        progress(done, len(files))

    damaged = find_wrong_sizes(filesystem, root, files)
    damaged |= find_damaged(filesystem, root, [f for f in files if f.path not in damaged], tick)
    findings: list[Finding] = []
    counts: dict[str, dict[str, int]] = {}
    sizes: dict[str, list[int]] = {}
    if damaged:
        examples = [f"{file}: {why}" for file, why in damaged.items()]
        found = finding_about("problem", "damaged", examples, f"are damaged; {REPAIR}", "file")
        findings.append(found)
    else:
        counts, sizes, inner = _look_into_pack(filesystem, root, manifest)
        findings += inner
    skipped = [f"{n}: {why}" for shard in manifest.shards for n, why in shard.skipped.items()]
    if skipped:
        findings.append(finding_about("note", "skipped", skipped, "were left out when packing"))
    return CheckReport(
        path=path,
        form="packed",
        images=sum(shard.images for shard in manifest.shards),
        bytes=sum(file.bytes for file in files),
        seconds=time.monotonic() - begin,
        counts=counts,
        size_range=sizes,
        findings=in_order_of_level(findings),
    )


def _look_into_pack(
    filesystem: "fs.FileSystem", root: str, manifest: Manifest
) -> tuple[dict[str, dict[str, int]], dict[str, list[int]], list[Finding]]:
    """Return counts, sizes and findings of the images in a pack's first variant."""
    variant = manifest.options.variants[0]
    counts: dict[str, dict[str, int]] = {}
    known: list[tuple[str, str, str]] = []
    digests: list[bytes] = []
    widths: list[int] = []
    heights: list[int] = []
    for split in SPLITS:
        shards = manifest.shards_of("train" if split == "train" else "val")
        found = read_indexes(filesystem, root, variant, shards, len(manifest.classes))
        rows = found.to_pydict()
        labels = [manifest.classes[label] for label in rows["label"]]
        numbers = Counter(labels)
        counts[split] = {name: numbers[name] for name in manifest.classes}
        known += [(n, split, label) for n, label in zip(rows["name"], labels, strict=True)]
        widths += rows["width"]
        heights += rows["height"]
        places = iter(zip(rows["offset"], rows["length"], strict=True))
        for shard in shards:
            file = f"{root}/{shard.files[variant.name].data.path}"
            with explained(file), filesystem.open_input_file(file) as opened:
                for _ in range(shard.images):
                    offset, length = next(places)
                    data = opened.read_at(length, offset)
                    digests.append(hashlib.blake2b(data, digest_size=16).digest())
    findings = class_findings(counts) + duplicate_findings(known, digests)
    return counts, size_range_of(widths, heights), findings
