"""Learning-rate schedules as pure functions of the step: nothing to save, nothing to restore.

A shape maps the time in epochs to a factor of the peak rate. Warm-up is the same for all: linear,
from one part at the first step to the peak at the step that ends it.
"""

import math
from collections.abc import Callable
from typing import Any

from workloads.config.optim import ConstantConfig, CosineConfig, StepConfig
from workloads.config.train import TrainConfig


def constant(config: ConstantConfig, epoch: float, epochs: int) -> float:
    """Return 1 throughout."""
    return 1.0


def cosine(config: CosineConfig, epoch: float, epochs: int) -> float:
    """Fall from 1 at the end of the warm-up to `final_lr_ratio` at the end, as half a cosine."""
    done = (epoch - config.warmup_epochs) / (epochs - config.warmup_epochs)
    weight = 0.5 * (1.0 + math.cos(math.pi * min(max(done, 0.0), 1.0)))
    return config.final_lr_ratio + (1.0 - config.final_lr_ratio) * weight


def step(config: StepConfig, epoch: float, epochs: int) -> float:
    """Return `gamma` to the power of the milestones that have been reached."""
    return config.gamma ** sum(epoch >= milestone for milestone in config.milestones)


SCHEDULES: dict[str, Callable[[Any, float, int], float]] = {
    "constant": constant,
    "cosine": cosine,
    "step": step,
}


def learning_rate(config: TrainConfig, steps_per_epoch: int, global_step: int) -> float:
    """Return the rate for the optimizer step after `global_step` steps are done."""
    schedule = config.schedule
    warmup_steps = schedule.warmup_epochs * steps_per_epoch
    if global_step < warmup_steps:
        return config.optim.lr * min(1.0, (global_step + 1) / warmup_steps)
    epoch = global_step / steps_per_epoch
    return config.optim.lr * SCHEDULES[schedule.name](schedule, epoch, config.epochs)
