"""Names beside points, each where it covers the least."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.results.drawing import settle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

_PLACES = (
    (7, 0, "left", "center"),
    (-7, 0, "right", "center"),
    (0, 7, "center", "bottom"),
    (0, -7, "center", "top"),
    (6, 6, "left", "bottom"),
    (6, -6, "left", "top"),
    (-6, 6, "right", "bottom"),
    (-6, -6, "right", "top"),
    (14, 16, "left", "bottom"),
    (14, -16, "left", "top"),
    (-14, 16, "right", "bottom"),
    (-14, -16, "right", "top"),
)
"""Offsets from the point in typographic points, and what of the text is there; best first."""


def place_labels(
    axes: "Axes",
    points: Sequence[tuple[float, float, str, str]],
    bars: Sequence[tuple[float, float, float]] = (),
) -> None:
    """Write a name beside each point, where it covers neither others nor the edge.

    Args:
        axes: Its limits and scales are final.
        points: x, y, name, colour; one without a name is only kept free.
        bars: x, lower and upper y of vertical bars, which are not to be covered either.
    """
    from matplotlib.transforms import Bbox

    settle(axes)
    inside = axes.get_window_extent()
    dots = [tuple(axes.transData.transform((x, y))) for x, y, _, _ in points]
    taken: list[Bbox] = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in dots]
    for x, low, high in bars:
        (left, bottom), (_, top) = axes.transData.transform([(x, low), (x, high)])
        taken.append(Bbox.from_extents(left - 3, bottom, left + 3, top))
    for x, y, name, colour in sorted(points, key=lambda point: (-point[1], point[0])):
        if not name:
            continue
        best, least = None, float("inf")
        for dx, dy, ha, va in _PLACES:
            note = axes.annotate(
                name, (x, y), xytext=(dx, dy), textcoords="offset points", ha=ha, va=va,
                fontsize=7.5, color=colour,
                arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5}
                if abs(dx) > 10 else None,
            )  # fmt: skip
            box = note.get_window_extent()
            cost = sum(_overlap(box, other) for other in taken) + _outside(box, inside)
            if cost < least:
                if best is not None:
                    best[0].remove()
                best, least = (note, box), cost
            else:
                note.remove()
            if least == 0:
                break
        if best is not None:
            taken.append(best[1])


def _overlap(one: "Bbox", other: "Bbox") -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(width * height) if width > 0 and height > 0 else 0.0


def _outside(box: "Bbox", frame: "Bbox") -> float:
    """Return the area of a text that lies outside of the axes."""
    return float(box.width * box.height) - _overlap(box, frame)
