"""What a check of images has found, and what is found the same way in folders and in packs.

A problem stops a training, a warning makes its numbers doubtful, a note says how unusual images
are read. Needs no torch.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from workloads.config.errors import did_you_mean
from workloads.data.errors import printable
from workloads.data.scan import SPLITS

Level = Literal["problem", "warning", "note"]
FEW_IMAGES = 5
"""Classes with fewer training images are named."""
_MOST_EXAMPLES = 100
_MOST_NAMES = 8
"""Of equal files: a picture that says "not available" can be there ten thousand times."""


@dataclass(frozen=True)
class Finding:
    """One thing to know.

    Attributes:
        kind: A word for programs.
        text: A sentence for people.
        count: How many images, files or classes it is about.
        examples: Some of them, with what belongs to each.
    """

    level: Level
    kind: str
    text: str
    count: int
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CheckReport:
    """What was found.

    Attributes:
        form: What `path` is.
        counts: Images by split and class.
        size_range: Smallest, median and largest width, and height, in pixels; empty for none.
    """

    path: str
    form: Literal["image_folder", "packed"]
    images: int
    bytes: int
    seconds: float
    counts: dict[str, dict[str, int]]
    size_range: dict[str, list[int]]
    findings: list[Finding]

    @property
    def stops_training(self) -> bool:
        """Whether a training on these images would not begin."""
        return any(finding.level == "problem" for finding in self.findings)


def class_findings(counts: dict[str, dict[str, int]]) -> list[Finding]:
    """Say what is wrong with the classes themselves."""
    findings = []
    for split in SPLITS:
        if not counts[split]:
            text = f"there is no {split}/<class>/ folder"
            findings.append(Finding("problem", "no_split", text, 1))
    empty = [f"{s}/{name}" for s, of in counts.items() for name, n in of.items() if n == 0]
    if empty:
        findings.append(finding_about("problem", "empty_class", empty, "hold no images", "class"))
    train, val = (set(counts[split]) for split in SPLITS)
    if train and val:
        for here, there, split in ((train, val, "val"), (val, train, "train")):
            alone = sorted(here - there)
            close = [(name, did_you_mean(name, there - here)) for name in alone]
            named = [f"{name} ({hint})" if hint else name for name, hint in close]
            if alone:
                text = f"are not in {split}"
                findings.append(finding_about("problem", "class_mismatch", named, text, "class"))
    if len(train | val) == 1:
        (name,) = map(printable, train | val)
        text = f"there is one class only, {name}; it takes two to tell apart"
        findings.append(Finding("problem", "one_class", text, 1))
    few = [f"{name}: {n}" for name, n in counts["train"].items() if 0 < n < FEW_IMAGES]
    if few:
        text = f"have fewer than {FEW_IMAGES} training images"
        findings.append(finding_about("warning", "few_images", few, text, "class"))
    return findings


def duplicate_findings(
    images: Sequence[tuple[str, str, str]], digests: Iterable[bytes]
) -> list[Finding]:
    """Find equal files; `images` are (name, split, class)."""
    groups: dict[bytes, list[tuple[str, str, str]]] = defaultdict(list)
    for image, digest in zip(images, digests, strict=True):
        groups[digest].append(image)
    several = [group for group in groups.values() if len(group) > 1]
    across = [g for g in several if len({split for _, split, _ in g}) > 1]
    other_label = [g for g in several if len({label for _, _, label in g}) > 1]
    within = [g for g in several if len({split for _, split, _ in g}) == 1]
    findings = []
    for kind, found, text in (
        ("overlap", across, "are in train and in val"),
        ("labels_differ", other_label, "are in more than one class"),
        ("duplicates", within, "are there more than once in a split"),
    ):
        if found:
            named = [_names_of([name for name, _, _ in group]) for group in found]
            findings.append(finding_about("warning", kind, named, text))
    return findings


def _names_of(equal: list[str]) -> str:
    more = len(equal) - _MOST_NAMES
    return " = ".join(equal[:_MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def finding_about(
    level: Level, kind: str, examples: Sequence[str], text: str, what: str = "image"
) -> Finding:
    count = len(examples)
    noun = what if count == 1 else {"class": "classes"}.get(what, f"{what}s")
    sentence = f"{count:,} {noun} {_singular(text) if count == 1 else text}"
    return Finding(level, kind, sentence, count, list(examples[:_MOST_EXAMPLES]))


def _singular(text: str) -> str:
    verb, _, rest = text.partition(" ")
    verb = {"are": "is", "have": "has", "hold": "holds", "lead": "leads", "were": "was"}.get(
        verb, verb
    )
    return (
        f"{verb} {rest}".replace(" their ", " its ")
        .replace("they are", "it is")
        .replace(" them", " it")
    )


def size_range_of(widths: Sequence[int], heights: Sequence[int]) -> dict[str, list[int]]:
    if not widths:
        return {}
    return {
        name: [min(of), int(statistics.median(of)), max(of)]
        for name, of in (("width", widths), ("height", heights))
    }


def in_order_of_level(findings: Iterable[Finding]) -> list[Finding]:
    order = ["problem", "warning", "note"]
    return sorted(findings, key=lambda finding: order.index(finding.level))
