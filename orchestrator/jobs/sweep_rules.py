"""What cannot work in a search, refused with the reason before anything runs."""

from collections.abc import Iterator

from orchestrator.jobs.space import grid_values, num_trials
from orchestrator.jobs.space_checks import corner_values
from orchestrator.jobs.space_text import format_domain, same
from workloads.config.errors import ConfigError, Problem
from workloads.config.sweep import (
    AshaConfig,
    HyperBandConfig,
    MedianConfig,
    Objective,
    PbtConfig,
    SweepConfig,
)
from workloads.config.train import TrainConfig

EPOCH_METRICS = {
    "val/top1": "max",
    "val/top5": "max",
    "val/loss": "min",
    "train/top1": "max",
    "train/loss": "min",
}
"""Metrics that a training records at each epoch and that say how good it is -> which is better."""
RESULT_METRICS = {
    "model/parameters": "min",
    "model/macs": "min",
    "time/train_s": "min",
    "time/epoch_s": "min",
    "perf/images_per_s": "max",
    "perf/peak_memory_mb": "min",
}
"""Metrics that say what a training costs -> which is better."""
METRICS = EPOCH_METRICS | RESULT_METRICS

_MOVES = (
    "optim.lr",
    "optim.weight_decay",
    "optim.momentum",
    "optim.nesterov",
    "optim.beta1",
    "optim.beta2",
    "optim.eps",
    "optim.trust_coefficient",
    "label_smoothing",
    "clip_norm",
    "augment",
    "mix",
)
"""Keys that may change while a training goes on, with all below them: no weight, no state of the
optimizer and no count of steps depends on them (`identity` in workloads/training/snapshot.py)."""
_STAYS = {
    "model": "the weights of one trial would not fit the network of another",
    "ema": "the moving average is a part of the checkpoint",
    "optim": "what the optimizer remembers would not fit",
    "global_batch_size": "a checkpoint counts the steps of one batch size",
    "steps_per_epoch": "a checkpoint counts the steps of one length of an epoch",
    "epochs": "all trials train for the same number of epochs",
    "seed": "a trial goes on with the random numbers of the one that it copies",
}
"""Key, with all below it -> why population based training cannot change it under way."""


def refuse_what_cannot_work(sweep: SweepConfig, trial: TrainConfig) -> None:
    """Check a search whose points can all be trained.

    Args:
        sweep: The search, with dimensions in order.
        trial: The config that its trials begin from.

    Raises:
        ConfigError: With every reason.
    """
    problems = [*_objectives(sweep), *_grid(sweep), *_scheduler(sweep, trial), *_pbt(sweep, trial)]
    if problems:
        raise ConfigError("tune", problems)


def _objectives(sweep: SweepConfig) -> Iterator[Problem]:
    metrics = [objective.metric for objective in sweep.objectives]
    for metric in metrics:
        if metrics.count(metric) > 1:
            yield Problem("--objective", f"{metric} is named twice")
            return


def _grid(sweep: SweepConfig) -> Iterator[Problem]:
    if sweep.search != "grid":
        return
    for dimension in sweep.space:
        if grid_values(dimension.domain) is None:
            kind = format_domain(dimension.domain)
            yield Problem(
                dimension.key,
                f"a grid takes every value, and {kind} has no end of them",
                "list them, choice(...), give a step, or use --search random or tpe",
            )


def _scheduler(sweep: SweepConfig, trial: TrainConfig) -> Iterator[Problem]:
    """Refuse what keeps trials from being compared while they train."""
    scheduler = sweep.scheduler
    if scheduler is None:
        return
    name, first = scheduler.name, sweep.objectives[0]
    if len(sweep.objectives) > 1:
        yield Problem(
            "--scheduler",
            f"{name} ends trials by one number, and there are {len(sweep.objectives)} objectives",
            "what is worse in one may be best in another; leave out --scheduler, or keep one "
            "--objective",
        )
    elif first.metric not in EPOCH_METRICS:
        yield Problem(
            "--objective",
            f"{name} compares trials at each epoch, and {first.metric} says nothing of how well "
            "they learn",
            f"one of {', '.join(EPOCH_METRICS)}, or no --scheduler",
        )
    if any(dimension.key == "epochs" for dimension in sweep.space):
        yield Problem(
            "epochs",
            f"cannot be searched with {name}: trials are compared at equal epochs, and the rates "
            "of a longer training are others at the same epoch",
            "leave out one of the two",
        )
    yield from _judged_often(name, first, trial)
    yield from _epochs_enough(sweep, trial.epochs)


def _judged_often(name: str, objective: Objective, trial: TrainConfig) -> Iterator[Problem]:
    often, first = trial.validation.every_epochs, trial.validation.from_epoch
    if objective.metric.startswith("val/") and (often > 1 or first > 1):
        rarely = f"every {often} epochs" if often > 1 else f"from epoch {first} on"
        yield Problem(
            "validation",
            f"{name} compares trials at each epoch, and the recipe validates {rarely} only",
            "add validation.every_epochs=1 validation.from_epoch=1",
        )


def _epochs_enough(sweep: SweepConfig, epochs: int) -> Iterator[Problem]:
    """Refuse trainings that are over before the scheduler would end one."""
    scheduler = sweep.scheduler
    if isinstance(scheduler, HyperBandConfig) and epochs < scheduler.reduction_factor**2:
        factor = scheduler.reduction_factor
        yield Problem(
            "--scheduler",
            f"hyperband with reduction_factor {factor} needs {factor**2} epochs or more for two "
            f"rounds, and a trial has {epochs}",
            "asha does with fewer; or a smaller reduction_factor",
        )
    key, first = "", 0
    if isinstance(scheduler, AshaConfig | MedianConfig):
        key, first = "grace_epochs", scheduler.grace_epochs
    elif isinstance(scheduler, PbtConfig):
        key, first = "every_epochs", scheduler.every_epochs
    if scheduler is not None and first >= epochs:
        yield Problem(
            "--scheduler",
            f"{scheduler.name} first looks after {first} epochs, when a trial of {epochs} is over",
            f"a {key} below {epochs}, or more epochs",
        )
    if isinstance(scheduler, MedianConfig) and scheduler.min_trials >= num_trials(sweep):
        yield Problem(
            "--scheduler",
            f"median waits for {scheduler.min_trials} trials, and there are {num_trials(sweep)}",
            "a smaller min_trials, or more --trials",
        )


def _pbt(sweep: SweepConfig, trial: TrainConfig) -> Iterator[Problem]:
    if not isinstance(sweep.scheduler, PbtConfig):
        return
    if sweep.trial_workers > 1:
        yield Problem(
            "--workers",
            f"pbt cannot have trials of {sweep.trial_workers} workers: a trial goes on from the "
            "checkpoint of another, which only trials of one worker hand over",
            "--workers 1, or another --scheduler",
        )
    if sweep.search != "random":
        reason = "takes each point once" if sweep.search == "grid" else "learns from fixed settings"
        yield Problem(
            "--search",
            f"pbt changes the settings of a trial while it trains, and {sweep.search} {reason}",
            "--search random draws the settings to begin with",
        )
    if sweep.search != "grid" and sweep.num_trials < 4:
        yield Problem("--trials", f"pbt needs a population, not {sweep.num_trials}", "4 or more")
    for dimension in sweep.space:
        key = dimension.key
        if dimension.when:
            yield Problem(
                key,
                "pbt changes each setting by itself, and this one exists only under a condition",
                "search without conditions",
            )
        elif not _is_below(key, _MOVES):
            reason = next((why for k, why in _STAYS.items() if _is_below(key, (k,))), "")
            yield Problem(
                key,
                "cannot change while a training goes on" + (f": {reason}" if reason else ""),
                f"pbt searches {', '.join(_MOVES[:3])}, label_smoothing, augment and the like",
            )
        elif _regroups(key, trial) and any(same(v, 0) for v in corner_values(dimension)):
            yield Problem(
                key,
                "is 0 in some trials, and then no weights are told apart by their decay: what the "
                "optimizer remembers would not fit",
                "a range above 0",
            )


def _regroups(key: str, trial: TrainConfig) -> bool:
    apart = not trial.optim.decay_norms_and_biases or bool(trial.optim.no_decay_parts)
    return key == "optim.weight_decay" and apart


def _is_below(key: str, places: tuple[str, ...]) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in places)
