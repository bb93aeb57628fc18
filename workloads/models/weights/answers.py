"""The verbs `convert` and `export` of ``python -m workloads.models``."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workloads.models.weights import model_file
from workloads.models.weights.convert import Conversion, convert
from workloads.models.weights.errors import WeightsError
from workloads.models.weights.export import SUFFIXES, export
from workloads.models.weights.reading import sha256

_SUFFIXES = (".pth", ".pt", ".tar", ".bin", ".safetensors", ".ckpt", model_file.SUFFIX)
"""What is taken off a file's name before another suffix is put on."""


def convert_file(request: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a file and say what was found.

    Args:
        request: `file`; `output` or null; `zoo_name` or null, `overrides`, `vector_order` or
            null, `reorder`: see `workloads.models.weights.convert.convert`; `force`; `dry_run`
            to write nothing.

    Raises:
        WeightsError: See there; and what the system says of the files.
    """
    output = _output(request, model_file.SUFFIX)
    try:
        if not request["dry_run"]:  # before minutes are spent
            model_file.refuse_existing(output, force=request["force"])
        conversion = _convert(request)
        if not request["dry_run"]:
            model_file.save_model(conversion.model, output, force=request["force"])
    except OSError as error:
        raise _system_error(error, output) from error
    written = None if request["dry_run"] else {"path": str(output), "sha256": sha256(output)}
    return _described(conversion) | {"written": written}


def export_file(request: Mapping[str, Any]) -> dict[str, Any]:
    """Export a model file, or anything `convert_file` takes, and say how it was checked.

    Args:
        request: `file`, `output` and `force` as in `convert_file`, `format`, `image_size` or
            null, `batch` or null.

    Raises:
        WeightsError: See `workloads.models.weights.export.export`.
    """
    output = _output(request, SUFFIXES[request["format"]])
    try:
        model_file.refuse_existing(output, force=request["force"])
        conversion = _convert(request)
        exported = export(
            conversion.model,
            output,
            file_format=request["format"],
            image_size=request["image_size"],
            batch=request["batch"],
            force=request["force"],
        )
    except OSError as error:
        raise _system_error(error, output) from error
    return _described(conversion) | {
        "written": {"path": str(output), "sha256": sha256(output)},
        "exported": {**asdict(exported), "path": str(output)},
    }


def _convert(request: Mapping[str, Any]) -> Conversion:
    return convert(
        Path(request["file"]),
        zoo_name=request["zoo_name"],
        overrides=request["overrides"],
        vector_order=request["vector_order"],
        reorder=request["reorder"],
    )


def _output(request: Mapping[str, Any], suffix: str) -> Path:
    """Return where to write: as asked, or in the current folder under the source's name."""
    if request["output"] is not None:
        return Path(request["output"])
    name = Path(request["file"]).resolve().name
    while Path(name).suffix in _SUFFIXES:
        name = Path(name).stem
    return Path(f"{name}{suffix}")


def _system_error(error: OSError, output: Path) -> WeightsError:
    """Say what the system said; where a write fails, it does not say of which file."""
    return WeightsError(f"{error.filename or output}: {error.strerror or error}")


def _described(conversion: Conversion) -> dict[str, Any]:
    model = conversion.model
    return {
        "source": dict(model.source),
        "layout": conversion.layout,
        "model": model.config.model_dump(mode="json"),
        "in_channels": model.in_channels,
        "num_classes": model.num_classes,
        "image_size": model.image_size,
        "classes": None if model.classes is None else list(model.classes),
        "vector_order": model.vector_order,
        "parameters": sum(parameter.numel() for parameter in model.outline().parameters()),
        "assumed": list(conversion.assumed),
        "used": conversion.used,
        "renamed": _groups(conversion.renamed),
        "filled": conversion.filled,
        "dropped": conversion.dropped,
    }


def _groups(renamed: Mapping[str, str]) -> list[dict[str, Any]]:
    """Say in few lines what many names became: `layer_reduce.* -> head.reduction.0.*`."""
    counts = Counter(_patterns(old, new) for old, new in renamed.items())
    return [{"from": old, "to": new, "count": count} for (old, new), count in counts.items()]


def _patterns(old: str, new: str) -> tuple[str, str]:
    old_parts, new_parts = old.split("."), new.split(".")
    while old_parts and new_parts and old_parts[-1] == new_parts[-1]:
        del old_parts[-1], new_parts[-1]
    return ".".join([*old_parts, "*"]), ".".join([*new_parts, "*"])
