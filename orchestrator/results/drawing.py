"""How a report's figures are drawn and written: one look, the same bytes for the same numbers.

matplotlib is imported where it draws: it costs a second.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.results.page_style import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.0
"""Inches: the text width of a page in two columns."""
COLOURS = tuple(LIGHT[f"c{n}"] for n in range(1, 7))
MARKERS = ("o", "^", "s", "D", "v", "P")
INK, SOFT, RULE, BASE, PAPER = (LIGHT[k] for k in ("ink", "soft", "rule", "base", "paper"))

_LOOK: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a name is no formula
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "gcpctl",
    "pdf.fonttype": 42,
}


def draw(height: float, paint: Callable[["Figure"], None]) -> dict[str, bytes]:
    """Draw a figure and return its files by their ending, `svg` and `pdf`.

    Args:
        height: In inches; the width is `WIDTH`.
        paint: Fills the figure.
    """
    import matplotlib
    from matplotlib.figure import Figure

    look: Any = _LOOK  # its type lists every setting that there is
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        paint(figure)
        return {
            "svg": _written(figure, "svg", {"Date": None, "Creator": None}),
            "pdf": _written(figure, "pdf", {"CreationDate": None, "Creator": None}),
        }


def _written(figure: "Figure", kind: str, metadata: dict[str, Any]) -> bytes:
    target = io.BytesIO()
    figure.savefig(target, format=kind, metadata=metadata)
    return target.getvalue()


def inline(svg: bytes, name: str) -> str:
    """Return a drawing as an element for a page: in the page's colours, its ids its own.

    Args:
        name: Of the figure; it becomes part of all ids.
    """
    text = svg.decode()
    text = text[text.index("<svg ") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    for key, colour in LIGHT.items():
        text = text.replace(colour, f"var(--{key})")
    return text.strip()


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move numbers apart to a least distance, keeping their order, each as little as may be.

    Args:
        places: In any order.
        gap: Least distance of two.

    Returns:
        New places in the order given: the least-squares solution (pool adjacent violators).
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    blocks: list[tuple[float, int]] = []  # mean of place - rank * gap, and how many
    for rank, index in enumerate(order):
        mean, count = places[index] - rank * gap, 1
        while blocks and blocks[-1][0] > mean:
            before, many = blocks.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        blocks.append((mean, count))
    levels = [mean for mean, count in blocks for _ in range(count)]
    moved = [0.0] * len(places)
    for rank, index in enumerate(order):
        moved[index] = levels[rank] + rank * gap
    return moved


def settle(axes: "Axes") -> None:
    """Have the layout computed, so that places on the page are known."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()


def label_ends(axes: "Axes", ends: Sequence[tuple[float, str, str]], *, gap_points: float) -> None:
    """Write names at the right edge of the axes, at the heights of their lines.

    Args:
        axes: Its limits are final.
        ends: Height in data units, text, colour.
        gap_points: Least distance of two lines of text.
    """
    low, high = axes.get_ylim()
    settle(axes)
    height = axes.get_window_extent().height * 72 / axes.figure.dpi
    places = spread([y for y, _, _ in ends], gap_points / height * (high - low))
    over = max(0.0, max(places, default=low) - high)
    for (y, text, colour), place in zip(ends, places, strict=True):
        axes.annotate(
            text,
            (1.0, y),
            xycoords=axes.get_yaxis_transform(),
            xytext=(1.03, place - over),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            color=colour,
            fontsize=7.5,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )
