"""The numbers of an evaluation as people want to see them."""

from collections.abc import Mapping
from typing import Any

_PREFIX = "eval/"
_LABELS = {
    "top1": "top-1",
    "top5": "top-5",
    "loss": "loss",
    "ece": "ECE",
    "mce": "MCE",
    "brier": "Brier score",
    "mean_class_recall": "mean recall",
}
_PERCENT = ("top1", "top5", "mean_class_recall")


def numbers(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return what an evaluation found, as pairs of label and text, the main ones first."""
    found = {k.removeprefix(_PREFIX): v for k, v in metrics.items() if k.startswith(_PREFIX)}
    order = [*_LABELS, *sorted(found.keys() - _LABELS.keys())]
    return [
        (_LABELS.get(key, key), f"{found[key]:.2f} %" if key in _PERCENT else f"{found[key]:.4f}")
        for key in order
        if key in found
    ]


def files(result: Mapping[str, Any]) -> str:
    """Return the files that MLflow has, as one line: their folder, then their names."""
    paths = [str(path).rpartition("/") for path in result.get("files", ())]
    names = ", ".join(name for _, _, name in paths)
    return f"{paths[0][0]}/: {names}" if paths else ""
