"""The learning rates of recipes as a picture and as a line of text. Draws with matplotlib alone."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads.config.rates import learning_rate
from workloads.config.schedule import PiecewiseConfig, StepConfig
from workloads.config.train import TrainConfig

_USUAL_STEPS = 100
_POINTS = 2000
"""Most points of a curve; a picture is 1200 pixels wide."""
_MAGNITUDES = 8
"""A schedule whose median rate is this many times below its peak falls by magnitudes."""
_BARS = "▁▂▃▄▅▆▇█"
_BAR_COLUMNS = 30


@dataclass(frozen=True)
class Curve:
    """The learning rate of one training.

    Attributes:
        epochs: Times of the optimizer steps in epochs, ascending.
        rates: The rate of each of these steps.
        steps_per_epoch: With which it was computed.
    """

    name: str
    config: TrainConfig
    epochs: tuple[float, ...]
    rates: tuple[float, ...]
    steps_per_epoch: int

    def row(self) -> tuple[str, ...]:
        """Return name, epochs, first, highest and last rate, and the curve in small bars."""
        rates = (self.rates[0], max(self.rates), self.rates[-1])
        return (self.name, str(self.config.epochs), *(f"{r:.4g}" for r in rates), self.bars())

    def bars(self) -> str:
        """Return the curve as bars, from zero to its highest rate."""
        top, last = max(self.rates), len(self.rates) - 1
        columns = [self.rates[round(last * i / (_BAR_COLUMNS - 1))] for i in range(_BAR_COLUMNS)]
        return "".join(_BARS[round((len(_BARS) - 1) * rate / top)] for rate in columns)


def curve_of(name: str, config: TrainConfig, steps_per_epoch: int | None = None) -> Curve:
    """Return the rates of a training.

    Args:
        name: What the curve is called.
        config: The training.
        steps_per_epoch: Optimizer steps in an epoch; None takes the config's, or 100.
    """
    steps = steps_per_epoch or config.steps_per_epoch or _USUAL_STEPS
    total = steps * config.epochs
    stride = max(1, total // _POINTS)
    taken = sorted({*range(0, total, stride), *_around_changes(config, steps, total), total - 1})
    rates = tuple(learning_rate(config, steps, step) for step in taken)
    return Curve(name, config, tuple(step / steps for step in taken), rates, steps)


def _around_changes(config: TrainConfig, steps: int, total: int) -> set[int]:
    """Return the steps on both sides of each epoch's beginning, where rates jump."""
    edges = {epoch * steps for epoch in range(1, config.epochs)}
    return {step for edge in edges for step in (edge - 1, edge) if 0 <= step < total}


def draw_schedules(curves: Sequence[Curve], path: Path) -> None:
    """Draw curves over a common axis and write the picture.

    Raises:
        OSError: The file cannot be written.
        ValueError: Its ending is of no kind of picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, curve in enumerate(curves):
        axes.plot(curve.epochs, curve.rates, color=f"C{number}", label=curve.name, linewidth=1.5)
    _choose_scale(axes, curves, room=0.3 if len(curves) == 1 and _events(curves[0].config) else 0.0)
    for number, curve in enumerate(curves):
        _mark(axes, curve, f"C{number}", alone=len(curves) == 1)
    axes.set_xlabel("epoch")
    axes.set_ylabel("learning rate")
    axes.set_xlim(0, max(curve.config.epochs for curve in curves))
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)


def _choose_scale(axes: Any, curves: Sequence[Curve], *, room: float) -> None:
    """Draw rates that fall by magnitudes on a logarithmic scale, others from zero.

    Args:
        room: Share of the height that is left free above the curves, for words.
    """
    top = max(max(curve.rates) for curve in curves)
    if any(statistics.median(curve.rates) < max(curve.rates) / _MAGNITUDES for curve in curves):
        # A schedule's last step may be next to nothing; the picture is of the rest.
        positive = [rate for curve in curves for rate in curve.rates if rate > top * 1e-6]
        bottom = min(positive) / 1.5
        axes.set_yscale("log")
        axes.set_ylim(bottom, top * 1.3 * (top / bottom) ** (room / 2))
    else:
        axes.set_ylim(0, top * (1.05 + room))


def _mark(axes: Any, curve: Curve, color: str, *, alone: bool) -> None:
    """Mark what happens in the course of the training; spelled out where there is one curve."""
    config = curve.config
    if config.schedule.warmup_epochs:
        label = "warm-up" if alone else None
        axes.axvspan(0, config.schedule.warmup_epochs, color=color, alpha=0.12, label=label)
    for epoch, text in _events(config) if alone else ():
        axes.axvline(epoch, color="0.5", linewidth=0.8, linestyle=":")
        axes.annotate(
            text,
            (epoch, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -4),
            textcoords="offset points",
            rotation=90,
            va="top",
            fontsize="x-small",
            color="0.35",
        )


def _events(config: TrainConfig) -> list[tuple[float, str]]:
    """Return epochs at which something changes, and what."""
    found: dict[float, list[str]] = {}
    schedule = config.schedule
    if isinstance(schedule, StepConfig):
        for epoch in schedule.milestones:
            found.setdefault(epoch, []).append(f"x {schedule.gamma:g}")
    if isinstance(schedule, PiecewiseConfig):
        for epoch, factor in zip(schedule.epochs, schedule.factors, strict=True):
            found.setdefault(epoch, []).append(f"x {factor:.3g}")
    for step in config.progressive:
        found.setdefault(step.from_epoch, []).append(f"{step.size} pixels")
    if config.freeze is not None:
        parts = ", ".join(config.freeze.parts)
        found.setdefault(0, []).append(f"{parts} frozen")
        if config.freeze.until_epoch is not None:
            found.setdefault(config.freeze.until_epoch, []).append(f"{parts} move")
    if cooldown := getattr(schedule, "cooldown_epochs", 0):
        found.setdefault(config.epochs - cooldown, []).append("cooldown")
    events = [(epoch, "; ".join(texts)) for epoch, texts in found.items()]
    return sorted((epoch, text) for epoch, text in events if epoch < config.epochs)
