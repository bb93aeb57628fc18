"""The figures of a sweep's report: how it went, which settings were good, which mattered."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.jobs.space_text import format_value, without_name
from orchestrator.results.drawing import COLOURS, INK, PAPER, RULE, SOFT, draw
from orchestrator.results.sweep import Importance, SweepTrial, objective_value, ranked
from workloads.config.sweep import Choice, Objective, SweepConfig, Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ABSENT = "none"
_WISH = {"max": "larger is better", "min": "smaller is better"}
_MOST_AXES = 9
_GOOD = 0.2
"""Share of the finished trials whose lines stand out."""


def history(sweep: SweepConfig, trials: Sequence[SweepTrial]) -> dict[str, bytes] | None:
    """Draw what each trial reached, and the best so far."""
    objective = sweep.objectives[0]
    points = [(t, v) for t in trials if (v := objective_value(t, objective)) is not None]
    if len(points) < 2:
        return None
    return draw(2.9, lambda figure: _paint_history(figure, points, objective))


def _paint_history(
    figure: "Figure", points: Sequence[tuple[SweepTrial, float]], objective: Objective
) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    finished = [(t.number, v) for t, v in points if t.ending == "finished"]
    others = [(t.number, v) for t, v in points if t.ending != "finished"]
    if others:
        axes.plot(*zip(*others, strict=True), "x", color=SOFT, markersize=4, alpha=0.8,
                  label="ended early, or not yet")  # fmt: skip
    if finished:
        axes.plot(*zip(*finished, strict=True), "o", color=COLOURS[0], markersize=4.5,
                  label="finished")  # fmt: skip
        better = max if objective.direction == "max" else min
        best, steps = finished[0][1], []
        for number, value in finished:
            best = better(best, value)
            steps.append((number, best))
        steps.append((points[-1][0].number, best))
        axes.step(*zip(*steps, strict=True), where="post", color=COLOURS[1], linewidth=1.2,
                  label="best so far")  # fmt: skip
    axes.set_ylim(*_limits([value for _, value in points], objective))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial")
    axes.set_ylabel(objective.metric)
    figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=7.5)


def _limits(values: Sequence[float], objective: Objective) -> tuple[float, float]:
    """Return limits that show the better three quarters; the worst lie on the edge or beyond."""
    good = sorted(values, reverse=objective.direction == "max")
    worst = good[max(0, math.ceil(0.75 * len(good)) - 1)]
    low, high = min(good[0], worst), max(good[0], worst)
    room = 0.08 * (high - low) or max(abs(high), 1.0) * 0.02
    return low - room, high + room


# --- parallel coordinates ------------------------------------------------------------------------


def parallel(sweep: SweepConfig, trials: Sequence[SweepTrial]) -> dict[str, bytes] | None:
    """Draw each trial as a line through its settings to what it reached."""
    objective = sweep.objectives[0]
    there = [t for t in trials if objective_value(t, objective) is not None]
    keys = [k for k in _keys(sweep) if len({repr(t.values.get(k)) for t in there}) > 1]
    if len(there) < 2 or not keys:
        return None
    shown = keys[:_MOST_AXES]
    return draw(3.2, lambda figure: _paint_parallel(figure, sweep, there, shown))


def _keys(sweep: SweepConfig) -> list[str]:
    return list(dict.fromkeys(dimension.key for dimension in sweep.space))


def _paint_parallel(
    figure: "Figure", sweep: SweepConfig, trials: Sequence[SweepTrial], keys: Sequence[str]
) -> None:
    axes, objective = figure.subplots(), sweep.objectives[0]
    scales = [_Scale.of_setting(sweep, key, trials) for key in keys]
    reached = [objective_value(t, objective) or 0.0 for t in trials]
    low, high = _limits(reached, objective)
    scales.append(_Scale.of_numbers([low, high], is_log=False))
    order = ranked(trials, sweep.objectives)
    finished = [t for t in order if t.ending == "finished"]
    good = {t.number for t in finished[: max(1, round(_GOOD * len(finished)))]}
    for trial in reversed(order):
        value = min(max(objective_value(trial, objective) or 0.0, low), high)
        heights = [
            *(s.place(trial.values.get(k)) for k, s in zip(keys, scales, strict=False)),
            scales[-1].place(value),
        ]
        is_best = bool(finished) and trial.number == finished[0].number
        colour = COLOURS[1] if is_best else COLOURS[0] if trial.number in good else SOFT
        width = 2.2 if is_best else 1.2 if trial.number in good else 0.7
        axes.plot(range(len(heights)), heights, color=colour, linewidth=width,
                  alpha=1.0 if trial.number in good else 0.4)  # fmt: skip
    for index, scale in enumerate(scales):
        _paint_axis(axes, index, scale)
    names = [*map(_short, keys), objective.metric]
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.15, len(names) - 1 + 0.45)
    axes.set_ylim(-0.05, 1.05)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.tick_params(axis="x", length=0, pad=8)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _paint_axis(axes: "Axes", index: int, scale: "_Scale") -> None:
    axes.plot([index, index], [0, 1], color=RULE, linewidth=1.2, zorder=0)
    for height, text in scale.ticks:
        axes.plot(index, height, "_", color=SOFT, markersize=6)
        axes.annotate(
            text, (index, height), xytext=(5, 0), textcoords="offset points", va="center",
            fontsize=7, color=INK, zorder=5,
            bbox={"boxstyle": "square,pad=0.12", "fc": PAPER, "ec": "none", "alpha": 0.8},
        )  # fmt: skip


def _short(key: str) -> str:
    parts = without_name(key).split(".")
    return "\n".join(parts[-2:]) if len(parts) > 1 else parts[0]


class _Scale:
    """Heights from 0 to 1 for the values of one axis, and its ticks."""

    def __init__(
        self, places: Mapping[str, float], ends: tuple[float, float] | None, *, is_log: bool
    ) -> None:
        self._places = places
        self._ends = ends
        self._is_log = is_log

    @classmethod
    def of_setting(cls, sweep: SweepConfig, key: str, trials: Sequence[SweepTrial]) -> "_Scale":
        domains = [d.domain for d in sweep.space if d.key == key]
        values = [t.values[key] for t in trials if key in t.values]
        absent = len(values) < len(trials)
        if any(isinstance(domain, Choice) for domain in domains):
            listed = [v for d in domains if isinstance(d, Choice) for v in d.values]
            texts = list(dict.fromkeys(format_value(v) for v in (*listed, *values)))
            return cls.of_texts(texts, absent=absent)
        numbers = [float(v) for v in values if isinstance(v, int | float)]
        is_log = all(not isinstance(d, Choice) and d.log for d in domains)
        return cls.of_numbers(numbers, is_log=is_log, absent=absent)

    @classmethod
    def of_texts(cls, texts: Sequence[str], *, absent: bool) -> "_Scale":
        names = [*([_ABSENT] if absent else []), *texts]
        last = max(1, len(names) - 1)
        return cls({name: index / last for index, name in enumerate(names)}, None, is_log=False)

    @classmethod
    def of_numbers(
        cls, numbers: Sequence[float], *, is_log: bool, absent: bool = False
    ) -> "_Scale":
        ends = (min(numbers), max(numbers))
        return cls({_ABSENT: 0.0} if absent else {}, ends, is_log=is_log)

    @property
    def _floor(self) -> float:
        """Height of the smallest number; those without a value lie below."""
        return 0.15 if self._places else 0.0

    def place(self, value: Value) -> float:
        """Return the height of a value; None is that of a trial which has no such setting."""
        if self._ends is None:
            return self._places.get(_ABSENT if value is None else format_value(value), 0.0)
        if value is None:
            return 0.0
        low, high = map(self._measure, self._ends)
        share = (self._measure(float(value)) - low) / (high - low) if high > low else 0.5
        return self._floor + (1 - self._floor) * share

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Heights and texts."""
        named = [(height, name) for name, height in self._places.items()]
        if self._ends is None:
            return named
        low, high = self._ends
        middle = math.sqrt(low * high) if self._is_log else (low + high) / 2
        numbers = dict.fromkeys((low, middle, high))
        return [*named, *((self.place(n), f"{n:.4g}") for n in numbers)]

    def _measure(self, number: float) -> float:
        return math.log(number) if self._is_log else number


# --- importance, front ---------------------------------------------------------------------------


def importance_bars(importance: Importance) -> dict[str, bytes] | None:
    """Draw the share of the variance that each setting accounts for."""
    shares = importance.shares
    if not shares:
        return None

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.barh(range(len(shares)), [s.share for s in shares], color=COLOURS[0], height=0.55)
        for row, share in enumerate(shares):
            axes.text(share.share + 0.01, row, f"{share.share:.2f}", va="center", fontsize=7.5)
        axes.set_yticks(range(len(shares)), [s.label for s in shares])
        axes.set_ylim(len(shares) - 0.5, -0.5)
        axes.set_xlim(0, 1.08 * max(s.share for s in shares) + 0.02)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("share of the variance between trials")

    return draw(0.7 + 0.27 * len(shares), paint)


def front(
    sweep: SweepConfig, trials: Sequence[SweepTrial], best: Sequence[SweepTrial]
) -> dict[str, bytes] | None:
    """Draw the first two objectives of all finished trials, and the front that none beats."""
    if len(sweep.objectives) < 2 or len(best) < 1:
        return None
    down, across = sweep.objectives[:2]

    def places(some: Sequence[SweepTrial]) -> list[tuple[float, float]]:
        pairs = [(objective_value(t, across), objective_value(t, down)) for t in some]
        return sorted((x, y) for x, y in pairs if x is not None and y is not None)

    def paint(figure: "Figure") -> None:
        from matplotlib.ticker import EngFormatter

        axes = figure.subplots()
        all_of = places([t for t in trials if t.ending == "finished"])
        axes.plot(*zip(*all_of, strict=True), "o", color=SOFT, markersize=4, alpha=0.6)
        axes.plot(*zip(*places(best), strict=True), "D-", color=COLOURS[1], markersize=5,
                  linewidth=1.0)  # fmt: skip
        if across.metric.startswith("model/"):
            axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.set_xlabel(f"{across.metric} ({_WISH[across.direction]})")
        axes.set_ylabel(f"{down.metric} ({_WISH[down.direction]})")

    return draw(3.3, paint)
