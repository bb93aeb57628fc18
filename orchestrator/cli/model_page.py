"""What `gcpctl model convert` and `export` found and did, as text."""

import shutil
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.cli.network_page import options_text
from orchestrator.cli.output import is_terminal

_MOST_LINES = 10


def render(found: Mapping[str, Any]) -> str:
    """Write the answer of `workloads.models.weights.answers` as text."""
    return "\n".join(
        _wrapped(line, label if first else "")
        for label, lines in _sections(found)
        for first, line in zip([True] + [False] * len(lines), lines, strict=False)
    )


def _sections(found: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    source = found["source"]
    yield "file", [f"{source.get('file', '-')}, sha256 {str(source.get('sha256', '-'))[:12]}"]
    yield "layout", [found["layout"]]
    facts = [f"{key} {value}" for key, value in source.items() if key not in _OWN_FACTS]
    if facts:
        yield "it says", [", ".join(facts)]
    yield "network", [_network(found)]
    yield "classifier", [_classifier(found)]
    if found["assumed"]:
        yield "assumed", found["assumed"]
    yield "weights", _weights(found)
    if "exported" in found:
        exported = found["exported"]
        batch = "any batch" if exported["batch"] is None else f"batch {exported['batch']}"
        size = exported["image_size"]
        yield "input", [f"{batch} of {found['in_channels']} x {size} x {size}, float32"]
        batches = ", ".join(map(str, exported["batch_sizes"]))
        difference = f"{exported['difference']:.1e} of the largest logit apart at batch {batches}"
        yield "checked", [f"with {exported['runtime']}: {difference}"]
    written = found["written"]
    text = "nothing (--dry-run)" if written is None else written["path"]
    yield "written", [text]


_OWN_FACTS = ("file", "sha256", "layout")


def _network(found: Mapping[str, Any]) -> str:
    backbone, head = dict(found["model"]["backbone"]), found["model"]["head"]
    pooling = dict(head["pooling"])
    parts = [f"{backbone.pop('name')}{options_text(backbone)}"]
    if head["class_token"] == "only" and backbone.get("patch_size"):
        return f"{parts[0]} -> class token"
    if head["reduced_channels"] is not None:
        parts.append(f"{head['reduced_channels']} channels, {head['activation']}")
    parts.append(f"{pooling.pop('name')}{options_text(pooling)}")
    return " -> ".join(parts)


def _classifier(found: Mapping[str, Any]) -> str:
    hidden = found["model"]["head"]["hidden"]
    layers = "".join(f"{width:,} -> " for width in hidden)
    names = ", with their names" if found["classes"] is not None else ""
    return f"{layers}{found['num_classes']:,} classes{names}; {found['parameters']:,} parameters"


def _weights(found: Mapping[str, Any]) -> list[str]:
    lines = [f"{found['used']} tensors used"]
    lines += [f"{item['from']} -> {item['to']}  ({item['count']})" for item in found["renamed"]]
    if found["filled"]:
        reasons = dict.fromkeys(found["filled"].values())
        lines.append(f"{len(found['filled'])} missing, set to {'; '.join(reasons)}")
    left = [f"left out: {name}: {reason}" for name, reason in found["dropped"].items()]
    if len(left) > _MOST_LINES:
        left[_MOST_LINES:] = [f"and {len(left) - _MOST_LINES} more"]
    return lines + left


def _wrapped(text: str, label: str) -> str:
    width = shutil.get_terminal_size().columns if is_terminal() else 100
    return textwrap.fill(
        text,
        width=max(width, 40),
        initial_indent=f"{label:<12}",
        subsequent_indent=" " * 14,
        break_long_words=False,
        break_on_hyphens=False,
    )
