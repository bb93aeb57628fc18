"""Ray Tune's schedulers, as a sweep asks for them, within the workers that it holds.

Time is counted in epochs. What earlier attempts of the sweep found is told to the scheduler before
the first trial goes on, where it can take it: ASHA and the median rule decide as if nothing had
happened. HyperBand fills its brackets anew with the trials that are left.
"""

import math
import random
from collections.abc import Callable, Iterable
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from orchestrator.drivers.tuning.journal import Trial
from orchestrator.drivers.tuning.trainable import EPOCH, SCORE, TASK
from orchestrator.jobs.space import exists, grid_values, in_order, sample
from workloads.config.sweep import (
    AshaConfig,
    Choice,
    HyperBandConfig,
    Integer,
    MedianConfig,
    PbtConfig,
    SweepConfig,
    Uniform,
    Value,
)

_FACTORS = (0.8, 1.25)
"""What population based training multiplies a number with; each undoes the other."""


class _Capped:
    """Mixed into a scheduler that pauses trials: no more at once than the sweep holds workers for.

    Ray Tune starts whatever the cluster has room for, and that room may be promised to other jobs.
    """

    cap: int = 1
    stopping: Callable[[], bool] = staticmethod(lambda: False)
    _keeps_processes = False

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Take up a trial; with the first one, have processes kept while their trials pause.

        Ray Tune keeps one only, and a new one takes longer to start than a short epoch.
        """
        super().on_trial_add(tune_controller, trial)  # type: ignore[misc]
        cache = getattr(tune_controller, "_actor_cache", None)
        if cache is not None and not self._keeps_processes:
            self._keeps_processes = True
            cache.increase_max(trial.placement_group_factory, self.cap)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Return a trial that may start or go on now, or None."""
        trials = tune_controller.get_trials()
        busy = sum(trial.status in (TuneTrial.RUNNING, TuneTrial.PENDING) for trial in trials)
        chosen = super().choose_trial_to_run(tune_controller)  # type: ignore[misc]
        goes_on = chosen is not None and chosen.status == TuneTrial.PAUSED
        return None if goes_on and (busy >= self.cap or self.stopping()) else chosen


class CappedHyperBand(_Capped, HyperBandScheduler):  # type: ignore[misc]
    """HyperBand within the sweep's workers."""


class Median(MedianStoppingRule):  # type: ignore[misc]
    """The median rule for trials that may end without a result."""

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Take up a result, if there is one."""
        if SCORE in result:
            super().on_trial_complete(tune_controller, trial, result)


class Population(_Capped, PopulationBasedTraining):  # type: ignore[misc]
    """Population based training of more trials than fit at once: they take turns.

    Args:
        population: How many trials there are, begun or not.
        options: Of Ray Tune's scheduler.
    """

    def __init__(self, *, population: int, **options: Any) -> None:
        super().__init__(**options)
        self._population = population

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> Any:
        """Decide as Ray Tune does, and make room at a turn for trials that have not begun."""
        decision = super().on_trial_result(tune_controller, trial, result)
        at_turn = self._trial_state[trial].last_perturbation_time == result.get(EPOCH)
        waiting = len(tune_controller.get_trials()) < self._population
        if decision == TrialScheduler.CONTINUE and at_turn and waiting:
            return TrialScheduler.PAUSE
        return decision


def build_scheduler(
    sweep: SweepConfig, *, epochs: int, cap: int, stopping: Callable[[], bool]
) -> Any:
    """Return the scheduler that a sweep asks for.

    Args:
        sweep: What is asked for.
        epochs: Of a whole training.
        cap: Trials at once.
        stopping: Whether the sweep was asked to end.
    """
    first = sweep.objectives[0]
    common = {"time_attr": EPOCH, "metric": SCORE, "mode": first.direction}
    match sweep.scheduler:
        case None:
            return FIFOScheduler()
        case AshaConfig(grace_epochs=grace, reduction_factor=factor):
            return AsyncHyperBandScheduler(
                max_t=max(epochs, grace), grace_period=grace, reduction_factor=factor, **common
            )
        case MedianConfig(grace_epochs=grace, min_trials=fewest):
            return Median(
                grace_period=grace,
                min_samples_required=fewest,
                min_time_slice=math.inf,  # nothing is paused: it stops trials, or leaves them
                **common,
            )
        case HyperBandConfig(reduction_factor=factor):
            scheduler: Any = CappedHyperBand(max_t=epochs, reduction_factor=factor, **common)
        case PbtConfig() as pbt:
            random.seed(sweep.seed)  # Ray Tune draws whom to copy from the global generator
            scheduler = Population(
                population=sweep.num_trials,
                perturbation_interval=pbt.every_epochs,
                quantile_fraction=pbt.quantile,
                custom_explore_fn=Explorer(sweep, pbt),
                log_config=False,
                require_attrs=False,
                **common,
            )
    scheduler.cap, scheduler.stopping = cap, stopping
    return scheduler


class Explorer:
    """Gives a trial that goes on from a better one's weights settings near those of the better one.

    Numbers are multiplied (on a linear scale too, as in Jaderberg et al., 2017) and kept in their
    range, choices in an order move to a neighbour; now and then a value is drawn anew.
    """

    def __init__(self, sweep: SweepConfig, pbt: PbtConfig) -> None:
        self._space = in_order(sweep.space)
        self._anew = pbt.resample_probability
        self._rng = random.Random(sweep.seed)

    def __call__(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the config of a trial with new values."""
        task = dict(config[TASK])
        return {**config, TASK: {**task, "values": self.explore(task["values"])}}

    def explore(self, values: dict[str, Value]) -> dict[str, Value]:
        """Return values near `values`."""
        drawn = sample(self._space, self._rng)
        found: dict[str, Value] = {}
        for dimension in self._space:
            if not exists(dimension, found):
                continue
            key, domain = dimension.key, dimension.domain
            if key not in values or self._rng.random() < self._anew:
                found[key] = drawn.get(key, values.get(key))
            else:
                found[key] = self._near(domain, values[key])
        return found

    def _near(self, domain: Choice | Integer | Uniform, value: Value) -> Value:
        if isinstance(domain, Choice) or domain.step not in (None, 1):
            listed = grid_values(domain) or [value]
            at = listed.index(value) if value in listed else 0
            return listed[min(max(at + self._rng.choice((-1, 1)), 0), len(listed) - 1)]
        assert isinstance(value, int | float)
        moved = min(max(value * self._rng.choice(_FACTORS), domain.low), domain.high)
        return round(moved) if isinstance(domain, Integer) else moved


def replay(scheduler: Any, trials: Iterable[Trial], metric: str) -> None:
    """Tell a scheduler what the trials of earlier attempts reported.

    Args:
        scheduler: As `build_scheduler` made it.
        trials: Ended or not; the latter go on under the same names.
        metric: Of the first objective.
    """
    if not isinstance(scheduler, AsyncHyperBandScheduler | Median):
        return
    for trial in sorted(trials, key=lambda trial: trial.created_ms):
        past = _Past(trial.name)
        scheduler.on_trial_add(None, past)
        for epoch, value in trial.curve(metric):
            result = {EPOCH: epoch, SCORE: value}
            if isinstance(scheduler, Median):
                scheduler._results[past].append(result)
            else:
                scheduler.on_trial_result(None, past, result)
        if trial.end is None and isinstance(scheduler, Median):
            scheduler._results.pop(past, None)  # it will report again, and counts once


class _Past:
    """A trial of an earlier attempt, as far as a scheduler looks at it."""

    def __init__(self, name: str) -> None:
        self.trial_id = name
