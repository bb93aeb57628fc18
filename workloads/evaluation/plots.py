"""The pictures of an evaluation: who is taken for whom, and how far confidence can be trusted.

matplotlib is imported where it draws: it costs a second, and a training's validation draws nothing.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workloads import durable
from workloads.evaluation.metrics import Calibration
from workloads.evaluation.result import Evaluation
from workloads.evaluation.tables import most_confused

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONFUSION_PICTURE = "confusion_matrix.png"
CALIBRATION_PICTURE = "calibration.png"

_MOST_WITH_NUMBERS = 25
_MOST_WITH_NAMES = 60
_MOST_CELLS = 100
"""On a side of the picture."""
_LONGEST_NAME, _LONGEST_LISTED = 18, 26
_LISTED_PAIRS = 20
_DPI = 120
_BLUE, _RED, _GRAY = "#8fb8da", "#c0392b", "#555555"


def write_pictures(evaluation: Evaluation, folder: Path) -> None:
    """Write both as PNG, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    durable.write_file(folder / CONFUSION_PICTURE, _png(draw_confusions(evaluation)))
    durable.write_file(folder / CALIBRATION_PICTURE, _png(draw_calibration(evaluation)))


def draw_confusions(evaluation: Evaluation) -> "Figure":
    """Draw the share of each true class (row) that was taken for each class (column).

    Few classes have their names and numbers of images. Of many, the pairs that are confused most
    often are listed beside the matrix; of very many, a cell stands for a square of classes, for
    single mistakes would be smaller than a dot.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    count = len(evaluation.classes)
    listed = count > _MOST_WITH_NUMBERS
    side = 9.0 if listed else max(4.5, min(0.55 * count, 9.0)) + 1.5
    figure = Figure(figsize=(side + (6.0 if listed else 0.9), side), layout="constrained")
    if listed:
        axes, beside = figure.subplots(1, 2, width_ratios=(9.5, 5.5))
        _list_pairs(beside, evaluation)
    else:
        axes = figure.subplots()
    shares, of_each = _shares(evaluation)
    # A root stretches the small shares: mistakes are what the picture is for.
    picture = axes.imshow(
        shares,
        cmap="Blues",
        norm=PowerNorm(0.5 if of_each == 1 else 0.3, 0.0, 1.0),
        interpolation="nearest",
        extent=(-0.5, len(shares) * of_each - 0.5, len(shares) * of_each - 0.5, -0.5),
    )
    ticks = [0, 0.05, 0.2, 0.5, 1] if of_each == 1 else [0, 0.001, 0.01, 0.05, 0.2, 1]
    figure.colorbar(
        picture, ax=axes, shrink=0.8, ticks=ticks, format="%g", label="share of the true class"
    )
    if count <= _MOST_WITH_NAMES:
        names = [_shorten(name) for name in evaluation.classes]
        size = 9 if not listed else 7
        axes.set_xticks(range(count), names, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(range(count), names, fontsize=size, parse_math=False)
    if not listed:
        _write_numbers(axes, evaluation, shares)
    cells = "" if of_each == 1 else f" (cells of {of_each} x {of_each} classes)"
    axes.set_xlabel(f"predicted{cells}")
    axes.set_ylabel("true")
    axes.set_title(_title(evaluation), fontsize=10, parse_math=False)
    return figure


def _shares(evaluation: Evaluation) -> tuple[Any, int]:
    """Return the picture's cells, and how many classes each has on a side."""
    count = len(evaluation.classes)
    of_each = -(-count // _MOST_CELLS)
    starts = np.arange(0, count, of_each)
    images = np.add.reduceat(evaluation.confusions, starts, axis=0)
    images = np.add.reduceat(images, starts, axis=1)
    support = np.add.reduceat(evaluation.per_class.support, starts)
    return images / np.maximum(support, 1)[:, None], of_each


def _write_numbers(axes: "Axes", evaluation: Evaluation, shares: Any) -> None:
    digits = len(str(int(evaluation.confusions.max(initial=0))))
    size = 10 if len(evaluation.classes) <= 12 and digits <= 4 else 7
    for row, column in zip(*np.nonzero(evaluation.confusions), strict=True):
        axes.text(
            column,
            row,
            str(int(evaluation.confusions[row, column])),
            ha="center",
            va="center",
            fontsize=size,
            color="white" if shares[row, column] > 0.3 else "black",
        )


def _list_pairs(axes: "Axes", evaluation: Evaluation) -> None:
    axes.axis("off")
    classes = evaluation.classes
    lines = [
        f"{images:>6}  {_shorten(classes[true], _LONGEST_LISTED)} \N{RIGHTWARDS ARROW} "
        f"{_shorten(classes[said], _LONGEST_LISTED)}"
        for true, said, images in most_confused(evaluation)[:_LISTED_PAIRS]
    ]
    heading = "images  true \N{RIGHTWARDS ARROW} predicted: the most confused"
    axes.text(
        0.0,
        0.93,
        "\n".join([heading, "", *(lines or ["  none"])]),
        va="top",
        family="monospace",
        fontsize=8,
        linespacing=1.5,
        parse_math=False,
        transform=axes.transAxes,
    )


def draw_calibration(evaluation: Evaluation) -> "Figure":
    """Draw accuracy over confidence, bin by bin, above how many images are in each bin."""
    from matplotlib.figure import Figure

    calibration = evaluation.calibration
    bins = len(calibration.counts)
    centres, width = (np.arange(bins) + 0.5) / bins, 1.0 / bins
    figure = Figure(figsize=(6.0, 7.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _draw_reliability(above, calibration, centres, width)
    above.set_title(
        f"{_title(evaluation)}\nECE {calibration.ece:.4f}, largest gap {calibration.mce:.4f}, "
        f"{bins} bins",
        fontsize=10,
        parse_math=False,  # a dollar in a name is no formula
    )
    below.bar(centres, calibration.counts, width, color=_GRAY, edgecolor="white", linewidth=0.8)
    below.set_ylabel("images")
    below.set_xlabel("confidence (probability of the predicted class)")
    below.set_xlim(0.0, 1.0)
    return figure


def _draw_reliability(axes: "Axes", calibration: Calibration, centres: Any, width: float) -> None:
    filled = calibration.counts > 0
    places = centres[filled]
    accuracy, confidence = calibration.accuracy[filled], calibration.confidence[filled]
    axes.bar(
        places, accuracy, width, color=_BLUE, edgecolor="white", linewidth=0.8, label="accuracy"
    )
    axes.plot([0, 1], [0, 1], "--", color=_GRAY, linewidth=1, label="perfectly calibrated")
    axes.vlines(places, accuracy, confidence, color=_RED, linewidth=1.5)
    half = 0.4 * width
    axes.hlines(
        confidence,
        places - half,
        places + half,
        color=_RED,
        linewidth=3,
        label="mean confidence, and its distance from accuracy",
    )
    axes.set_ylim(0.0, 1.25)  # room for the legend above a bar of 1
    axes.set_yticks(np.linspace(0.0, 1.0, 6))
    axes.set_ylabel("share that is right")
    axes.legend(loc="upper left", fontsize=8, framealpha=0.9)


def _title(evaluation: Evaluation) -> str:
    result = evaluation.result
    return (
        f"{result.config.origin or Path(result.config.weights).name} on {result.config.data.name} "
        f"{result.config.split}: top-1 {result.top1:.2f} % of {result.num_images:,} images"
    )


def _png(figure: "Figure") -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=_DPI)
    return target.getvalue()


def _shorten(name: str, most: int = _LONGEST_NAME) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
