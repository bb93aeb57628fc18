"""A search as a person sees it before it runs: its dimensions, some of its points, its cost."""

import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.jobs.job import Job
from orchestrator.jobs.space import grid, grid_values, num_trials, sample
from orchestrator.jobs.space_text import format_value, format_word
from orchestrator.jobs.states import State
from workloads.config.sweep import Choice, Dimension, Integer, SweepConfig
from workloads.config.train import TrainConfig

DIMENSIONS = ("KEY", "KIND", "VALUES", "ONLY IF")
_MOST_POINTS = 100_000


@dataclass(frozen=True)
class TrialCost:
    """What a trial is expected to take.

    Attributes:
        worker_s: Seconds of one worker for a whole trial.
        jobs: How many past jobs that was told from.
    """

    worker_s: float
    jobs: int


def dimension_rows(space: Sequence[Dimension]) -> list[tuple[str, ...]]:
    """Return the dimensions as rows under `DIMENSIONS`."""
    return [(d.key, _kind(d), _values(d), _condition(d)) for d in space]


def sample_rows(sweep: SweepConfig, count: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return header and rows of some points: the first of a grid, else some drawn at random."""
    keys = tuple(dict.fromkeys(dimension.key for dimension in sweep.space))
    points = []
    if sweep.search == "grid":
        for point in grid(sweep.space):
            points.append(point)
            if len(points) == count:
                break
    else:
        rng = random.Random(sweep.seed)
        points = [sample(sweep.space, rng) for _ in range(count)]
    return keys, [
        tuple(format_value(point[key]) if key in point else "" for key in keys) for point in points
    ]


def num_points(space: Sequence[Dimension]) -> int | None:
    """Return how many points a space has; None for no end of them, or very many."""
    if any(grid_values(dimension.domain) is None for dimension in space):
        return None
    count = 0
    for count, _ in enumerate(grid(space), start=1):
        if count > _MOST_POINTS:
            return None
    return count


def trial_cost(sweep: SweepConfig, jobs: Iterable[Job]) -> TrialCost | None:
    """Return what a trial takes, told from finished trainings; None if there are none.

    Args:
        jobs: Jobs of the sweep's recipe. Those of other poolings or sizes count too: the figure is
            to plan with, not to compare by.
    """
    epochs = sweep.base.get("epochs", TrainConfig.model_fields["epochs"].default)
    per_epoch = [
        job.metrics["time/train_s"] * job.num_workers / job.epoch
        for job in jobs
        if job.kind == "train"
        and job.state is State.FINISHED
        and job.epoch > 0
        and job.metrics.get("time/train_s", 0.0) > 0.0
    ]
    if not per_epoch:
        return None
    return TrialCost(statistics.median(per_epoch) * epochs, len(per_epoch))


def total_worker_s(sweep: SweepConfig, cost: TrialCost) -> float:
    """Return seconds of one worker for all trials, none of them ended early."""
    return cost.worker_s * num_trials(sweep)


def _kind(dimension: Dimension) -> str:
    domain = dimension.domain
    if isinstance(domain, Choice):
        return "choice"
    kind = "whole number" if isinstance(domain, Integer) else "number"
    return f"{kind}, log" if domain.log else kind


def _values(dimension: Dimension) -> str:
    domain = dimension.domain
    if isinstance(domain, Choice):
        return ", ".join(map(format_word, domain.values))
    step = "" if domain.step in (None, 1) else f" by {domain.step:g}"
    return f"{domain.low:g} to {domain.high:g}{step}"


def _condition(dimension: Dimension) -> str:
    return " and ".join(
        f"{key}={'|'.join(map(format_word, values))}" for key, values in dimension.when.items()
    )
