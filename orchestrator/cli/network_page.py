"""One network as a page of text, or as the mapping that the page is made from."""

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from orchestrator.cli.child import ask_models
from orchestrator.cli.networks import Network
from orchestrator.cli.output import is_terminal, table
from workloads.models.published import notes_for, results_of

_PARTS = {
    "features": "backbone",
    "attention": "attention products",
    "classifier": "hidden and classifier",
}
"""What parts of the counts are called, where it is not their own name."""


def describe(network: Network) -> dict[str, Any]:
    """Return everything that is known of a network: config, counts, stages, published results."""
    results = results_of(network.zoo_name) if network.zoo_name else []
    return {
        **network.request(),
        "origin": network.origin,
        "overrides": list(network.overrides),
        "zoo_name": network.zoo_name,
        **ask_models("describe", network.request()),
        "published": [asdict(result) for result in results],
        "notes": [{"id": note.id, "text": note.text} for note in notes_for(network.model)],
    }


def render(found: Mapping[str, Any]) -> str:
    """Write what `describe` returns as text."""
    sections = [
        _heading(found),
        _stage_table(found),
        _part_table(found),
        _published(found),
        _notes(found["notes"]),
    ]
    return "\n\n".join(section for section in sections if section)


def _heading(found: Mapping[str, Any]) -> str:
    backbone, head = dict(found["model"]["backbone"]), dict(found["model"]["head"])
    pooling = dict(head["pooling"])
    size = found["image_size"]
    pairs = [
        ("network", _identity(found)),
        ("images", f"{found['in_channels']} x {size} x {size}, {found['num_classes']:,} classes"),
        ("backbone", f"{backbone.pop('name')}{options_text(backbone)}"),
        ("pooled", _attach(found)),
    ]
    if found["positions"]:
        order = found["vector_order"]
        pairs += [
            ("reduction", _reduction(head)),
            ("pooling", f"{pooling.pop('name')}{options_text(pooling)}"),
            ("vector", f"{found['vector_width']:,} wide" + (f", {order}" if order else "")),
        ]
    pairs.append(("classifier", _classifier(head, found)))
    return "\n".join(_wrapped(text, first=f"{label:<12}", then=" " * 12) for label, text in pairs)


def _identity(found: Mapping[str, Any]) -> str:
    name, zoo_name = found["name"], found["zoo_name"]
    text = name if found["origin"] == "zoo" else f"{name}, from {found['origin']}"
    if found["overrides"]:
        text += f" with {' '.join(found['overrides'])}"
    return text if zoo_name in (None, name) else f"{text} (the same as {zoo_name})"


def options_text(options: Mapping[str, Any]) -> str:
    """Write ` (key value, ...)` as a recipe would have the values; nothing without options."""
    said = ", ".join(f"{key} {_plain(value)}" for key, value in options.items())
    return f" ({said})" if said else ""


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "null" if value is None else str(value)


def _attach(found: Mapping[str, Any]) -> str:
    place, positions = found["attach"], found["positions"]
    after = f"after {place['after']}, {place['channels']} channels, "
    if not positions:
        return after + "the class token alone"
    if place["tokens"]:
        others = " beside the class token" if place["prefix_tokens"] else ""
        return f"{after}{positions} tokens{others}"
    _, height, width = place["shape"]
    return f"{after}{height}x{width} = {positions} position{'s'[: positions != 1]}"


def _reduction(head: Mapping[str, Any]) -> str:
    width = head["reduced_channels"]
    if width is None:
        return "none"
    return f"1x1 convolution to {width} channels, BN, activation {head['activation']}"


def _classifier(head: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    layers = [*head["hidden"], found["num_classes"]] if found["positions"] else []
    text = "linear " + " - ".join(f"{width:,}" for width in layers) if layers else ""
    if head["dropout"] and layers:
        text += f", dropout {head['dropout']}"
    if found["attach"]["prefix_tokens"] and head["class_token"] != "ignore":
        text += f"{' plus ' if text else ''}linear of the class token"
    return text


def _stage_table(found: Mapping[str, Any]) -> str:
    rows = [
        (
            stage["name"] if stage["part"] == "backbone" else f"head.{stage['name']}",
            "x".join(map(str, stage["shape"])) or "-",
            f"{stage['parameters']:,}",
            _macs(stage["macs"]),
        )
        for stage in found["stages"]
    ]
    return table(*align_right(("STAGE", "OUTPUT", "PARAMETERS", "MACS"), rows, (2, 3)))


def _part_table(found: Mapping[str, Any]) -> str:
    parameters, macs = found["parameters_by_part"], found["macs_by_part"]
    rows = [
        (_PARTS.get(part, part), f"{parameters.get(part, 0):,}", _macs(macs.get(part, 0)))
        for part in dict.fromkeys((*parameters, *macs))
        if parameters.get(part) or macs.get(part)
    ]
    rows.append(("total", f"{found['parameters']:,}", _macs(found["macs"])))
    rows.append(("convolutions and linear layers alone", "", _macs(found["layer_macs"])))
    return table(*align_right(("PART", "PARAMETERS", "MACS"), rows, (1, 2)))


def _published(found: Mapping[str, Any]) -> str:
    results = found["published"]
    if not results:
        return "No published number for this configuration."
    sources = list(dict.fromkeys(result["source"] for result in results))
    rows = [
        (
            f"{result['top1']:.2f}",
            _optional(result["top5"], ".2f"),
            result["lr_mode"] or "-",
            _optional(result["epochs"], "d"),
            _optional(result["params_m"], "g"),
            _optional(result["gflops"], "g"),
            f"[{sources.index(result['source']) + 1}]",
            f"{result['model']} {result['pooling']}",
        )
        for result in results
    ]
    header = ("TOP-1", "TOP-5", "SCHEDULE", "EPOCHS", "M PARAM", "GFLOPS", "SOURCE", "CALLED")
    said = [i for i in range(len(header)) if any(row[i] != "-" for row in rows)]
    drawn = table([header[i] for i in said], [[row[i] for i in said] for row in rows])
    lines = [_wrapped(f"[{i}] {source}") for i, source in enumerate(sources, start=1)]
    return "\n".join(["Published results on ImageNet's validation images, percent", drawn, *lines])


def _notes(notes: Sequence[Mapping[str, str]]) -> str:
    texts = [f"{note['id']}: {note['text']}" if note["id"] else note["text"] for note in notes]
    return "\n".join(["Doubts about published numbers", *map(_wrapped, texts)]) if texts else ""


def _wrapped(text: str, *, first: str = "", then: str = "    ") -> str:
    return textwrap.fill(
        text, _width(), initial_indent=first, subsequent_indent=then, break_on_hyphens=False
    )


def _optional(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _macs(macs: int) -> str:
    """Write multiply-adds with three places of the unit that suits them."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if macs >= size * 0.01 or unit == "k":
            return f"{macs / size:,.3f} {unit}" if macs else "-"
    raise AssertionError("k suits all")


def align_right(
    header: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[int]
) -> tuple[list[str], list[list[str]]]:
    """Return header and rows for `table`, padded so that some columns end where they should."""
    lines = [list(header), *[list(row) for row in rows]]
    for column in columns:
        width = max(len(line[column]) for line in lines)
        for line in lines:
            line[column] = line[column].rjust(width)
    return lines[0], lines[1:]


def _width() -> int:
    columns = shutil.get_terminal_size().columns if is_terminal() else 100
    return max(40, min(columns, 100))
