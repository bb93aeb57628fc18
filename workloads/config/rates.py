"""Learning rates as pure functions of the step: nothing to save, nothing to restore.

Each schedule of `workloads.config.schedule` is a function from the time in epochs to a multiple of
the peak rate. Warm-up is the same for all. Imports no torch: the terminal draws the same numbers
that a training uses.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

from workloads.config.schedule import (
    ConstantConfig,
    CosineConfig,
    CosineDecayConfig,
    ExponentialConfig,
    GcpPolyConfig,
    LinearConfig,
    PiecewiseConfig,
    PolyConfig,
    ScheduleConfig,
    StepConfig,
)
from workloads.config.train import TrainConfig


def learning_rate(config: TrainConfig, steps_per_epoch: int, global_step: int) -> float:
    """Return the rate for the optimizer step after `global_step` steps are done."""
    return config.optim.lr * lr_factor(
        config.schedule,
        epochs=config.epochs,
        steps_per_epoch=steps_per_epoch,
        global_step=global_step,
    )


def lr_factor(
    schedule: ScheduleConfig, *, epochs: int, steps_per_epoch: int, global_step: int
) -> float:
    """Return the multiple of the peak rate for the step after `global_step` steps are done.

    With `per: epoch` all steps of an epoch have the factor of its number, counted from 0. A
    warm-up of W steps (or epochs) that starts at a share a of the peak has a + (1 - a) s / W at its
    step s; where it starts at nothing, (s + 1) / W, so that the first step is not lost.

    Args:
        schedule: The shape.
        epochs: Epochs of the whole training.
        steps_per_epoch: Optimizer steps in each.
        global_step: Optimizer steps done.
    """
    if schedule.per == "epoch":
        done, unit = global_step // steps_per_epoch, 1
    else:
        done, unit = global_step, steps_per_epoch
    warmup = schedule.warmup_epochs * unit
    if done >= warmup:
        return FACTORS[schedule.name](schedule, done / unit, epochs)
    if schedule.warmup_start == 0.0:
        return min(1.0, (done + 1) / warmup)
    return schedule.warmup_start + (1.0 - schedule.warmup_start) * done / warmup


def first_epoch_at_rest(config: TrainConfig) -> int | None:
    """Return the epoch, counted from 0, from which the rate is 0 to the end; None if there is none.

    Each epoch is looked at in its beginning and its middle.
    """
    epochs, resting = config.epochs, None
    for epoch in reversed(range(epochs)):
        steps = (2 * epoch, 2 * epoch + 1)
        if any(
            lr_factor(config.schedule, epochs=epochs, steps_per_epoch=2, global_step=step)
            for step in steps
        ):
            break
        resting = epoch
    return resting


def constant(config: ConstantConfig, epoch: float, epochs: int) -> float:
    """Return 1 throughout."""
    return 1.0


def cosine(config: CosineConfig, epoch: float, epochs: int) -> float:
    """Fall from 1 to `final_lr_ratio` as half a cosine (Loshchilov and Hutter, 2017, eq. 5).

    It ends where the cooldown begins, and begins where the warm-up ends, or at epoch 0 where they
    overlap.
    """
    start = 0.0 if config.warmup_overlaps else config.warmup_epochs
    weight = 0.5 * (1.0 + math.cos(math.pi * _share(epoch, start, epochs - config.cooldown_epochs)))
    return config.final_lr_ratio + (1.0 - config.final_lr_ratio) * weight


def linear(config: LinearConfig, epoch: float, epochs: int) -> float:
    """Fall from 1 at the end of the warm-up to `final_lr_ratio` on a straight line."""
    return 1.0 - (1.0 - config.final_lr_ratio) * _share(epoch, config.warmup_epochs, epochs)


def poly(config: PolyConfig, epoch: float, epochs: int) -> float:
    """Return (1 - t)^power, t from 0 at the end of the warm-up to 1."""
    return float((1.0 - _share(epoch, config.warmup_epochs, epochs)) ** config.power)


def gcp_poly(config: GcpPolyConfig, epoch: float, epochs: int) -> float:
    """Return (1 - (e - 1) / horizon)^power for epoch e, whose count begins at `first_epoch`."""
    number = epoch + config.first_epoch
    return float(max(0.0, 1.0 - (number - 1.0) / config.horizon) ** config.power)


def step(config: StepConfig, epoch: float, epochs: int) -> float:
    """Return `gamma` to the power of the milestones that have been reached."""
    reached = sum(epoch >= milestone for milestone in config.milestones)
    return float(config.gamma**reached)


def exponential(config: ExponentialConfig, epoch: float, epochs: int) -> float:
    """Return `gamma` to the power of the epochs since the end of the warm-up."""
    return float(config.gamma ** (epoch - config.warmup_epochs))


def piecewise(config: PiecewiseConfig, epoch: float, epochs: int) -> float:
    """Return the height at `epoch` of the line through the points; level after the last."""
    points = list(zip(config.epochs, config.factors, strict=True))
    for (begin, height), (end, next_height) in itertools.pairwise(points):
        if epoch < end:
            return height + (next_height - height) * (epoch - begin) / (end - begin)
    return points[-1][1]


def cosine_decay(config: CosineDecayConfig, epoch: float, epochs: int) -> float:
    """Return (1 - t) (1 + cos(0.94 pi u)) / 2 + 1e-5, as the TPAMI 2023 code does.

    With W epochs of warm-up among E, t = (e - W) / (E - W) and u = e / (E - W): the cosine counts
    the warm-up and the line does not, so that after a warm-up the rate begins below the peak.
    """
    span = epochs - config.warmup_epochs
    line = 1.0 - _share(epoch, config.warmup_epochs, epochs)
    return line * 0.5 * (1.0 + math.cos(0.94 * math.pi * epoch / span)) + 1e-5


def _share(epoch: float, start: float, end: float) -> float:
    """Return how much of the time from `start` to `end` is over, from 0 to 1."""
    return min(max((epoch - start) / (end - start), 0.0), 1.0)


FACTORS: dict[str, Callable[[Any, float, int], float]] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "poly": poly,
    "gcp_poly": gcp_poly,
    "step": step,
    "exponential": exponential,
    "piecewise": piecewise,
    "cosine_decay": cosine_decay,
}
"""By name: a schedule's config, the time in epochs and all epochs, to the multiple of the peak."""
