"""What to try next: a function of the seed, the trial's number and what the trials before it gave.

No state lies between two questions but the trials themselves. So a sweep that was killed asks on
exactly where it was, and one worker at a time gives the same trials again from the same seed.
"""

import hashlib
import itertools
import json
import random
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

from orchestrator.drivers.tuning.journal import Trial
from orchestrator.jobs.space import exists, grid, grid_values, in_order, label, num_trials, sample
from workloads.config.sweep import Choice, Dimension, Integer, Objective, SweepConfig, Value

_DRAWS = 20
"""How often a point is drawn anew that was tried before, until the untried ones are listed."""


class Search(Protocol):
    """Chooses the values of trials."""

    def choose(self, number: int, trials: Mapping[int, Trial]) -> dict[str, Value] | None:
        """Return the values of trial `number`; None when nothing is left to try.

        Args:
            number: Of the new trial; all before it exist.
            trials: Every trial so far, ended or not.
        """


def build_search(sweep: SweepConfig) -> Search:
    """Return the search that a sweep asks for."""
    if sweep.search == "grid":
        return GridSearch(sweep)
    return TpeSearch(sweep) if sweep.search == "tpe" else RandomSearch(sweep)


class GridSearch:
    """Every point, in order."""

    def __init__(self, sweep: SweepConfig) -> None:
        self._points = list(grid(in_order(sweep.space)))
        self._total = num_trials(sweep)

    def choose(self, number: int, trials: Mapping[int, Trial]) -> dict[str, Value] | None:
        """Return the next point."""
        return dict(self._points[number % len(self._points)]) if number < self._total else None


class RandomSearch:
    """Points drawn independently; the draw of a trial depends on its number only."""

    def __init__(self, sweep: SweepConfig) -> None:
        self._space = in_order(sweep.space)
        self._seed = sweep.seed

    def choose(self, number: int, trials: Mapping[int, Trial]) -> dict[str, Value] | None:
        """Return a point that no trial had."""
        tried = {_signature(trial.values) for trial in trials.values()}
        for draw in range(_DRAWS):
            values = sample(self._space, random.Random(_seed(self._seed, number, draw)))
            if _signature(values) not in tried:
                return values
        return _untried(self._space, tried)


class TpeSearch:
    """The tree-structured Parzen estimator (Bergstra et al., 2011), from Optuna.

    Conditional dimensions are asked for only where they exist, dimensions are estimated together,
    and trials under way count as bad ones, which keeps parallel trials apart. Several objectives
    are searched for their Pareto front.
    """

    def __init__(self, sweep: SweepConfig) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._space = in_order(sweep.space)
        self._objectives = sweep.objectives
        self._seed = sweep.seed
        # A third of a short search at most is spent on points that nothing is known of.
        self._random_trials = max(3, min(10, sweep.num_trials // 3))
        directions = optuna.study.StudyDirection
        self._study = optuna.create_study(
            directions=[
                directions.MAXIMIZE if objective.direction == "max" else directions.MINIMIZE
                for objective in sweep.objectives
            ]
        )
        self._asked: dict[int, Any] = {}
        self._told: set[int] = set()

    def choose(self, number: int, trials: Mapping[int, Trial]) -> dict[str, Value] | None:
        """Return a promising point that no trial had."""
        self._learn(trials)
        tried = {_signature(trial.values) for trial in trials.values()}
        for draw in range(_DRAWS):
            asked, values = self._ask(_seed(self._seed, number, draw))
            if _signature(values) not in tried:
                self._asked[number] = asked
                return values
            self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
        return _untried(self._space, tried)

    def _ask(
        self, seed: int, fixed: Mapping[str, Value] | None = None
    ) -> tuple[Any, dict[str, Value]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            self._study.sampler = self._optuna.samplers.TPESampler(
                seed=seed,
                n_startup_trials=self._random_trials,
                multivariate=True,
                group=True,
                constant_liar=True,
            )
        if fixed is not None:
            self._study.enqueue_trial(
                {label(d): fixed[d.key] for d in self._space if exists(d, fixed)}
            )
        asked = self._study.ask()
        values: dict[str, Value] = {}
        for dimension in self._space:
            if exists(dimension, values):
                values[dimension.key] = _suggest(asked, dimension)
        return asked, values

    def _learn(self, trials: Mapping[int, Trial]) -> None:
        """Take up trials of an earlier attempt, and what became of all since the last question."""
        for number in sorted(trials):
            if number not in self._asked:
                self._asked[number], _ = self._ask(0, trials[number].values)
        ended = [t for t in trials.values() if t.end is not None and t.number not in self._told]
        for trial in sorted(ended, key=lambda trial: trial.number):
            self._tell(trial)
            self._told.add(trial.number)

    def _tell(self, trial: Trial) -> None:
        asked, states = self._asked[trial.number], self._optuna.trial.TrialState
        values = objective_values(trial, self._objectives)
        if trial.end == "finished" and values is not None:
            self._study.tell(asked, values)
        elif len(self._objectives) == 1:
            # Ranked below what finished: by how far it came and how good it was, or last of all.
            for epoch, value in trial.curve(self._objectives[0].metric) * (trial.end == "pruned"):
                asked.report(value, epoch)
            self._study.tell(asked, state=states.PRUNED)
        else:
            self._study.tell(asked, state=states.FAIL)


def objective_values(trial: Trial, objectives: tuple[Objective, ...]) -> list[float] | None:
    """Return what a trial reached in each objective; None if one was never recorded."""
    metrics = trial.metrics
    if any(objective.metric not in metrics for objective in objectives):
        return None
    return [metrics[objective.metric] for objective in objectives]


def _suggest(asked: Any, dimension: Dimension) -> Value:
    domain, name = dimension.domain, label(dimension)
    if isinstance(domain, Choice):
        chosen: Value = asked.suggest_categorical(name, list(domain.values))
    elif isinstance(domain, Integer):
        chosen = asked.suggest_int(name, domain.low, domain.high, log=domain.log, step=domain.step)
    else:
        chosen = asked.suggest_float(
            name, domain.low, domain.high, log=domain.log, step=domain.step
        )
    return chosen


def _untried(space: tuple[Dimension, ...], tried: set[str]) -> dict[str, Value] | None:
    """Return the first point of a finite space that no trial had."""
    if any(grid_values(dimension.domain) is None for dimension in space):
        return None
    points = itertools.islice(grid(space), 100_000)
    return next((point for point in points if _signature(point) not in tried), None)


def _signature(values: Mapping[str, Value]) -> str:
    return json.dumps(values, sort_keys=True)


def _seed(*words: int) -> int:
    """Mix numbers into 32 bits; neighbouring ones give unrelated results."""
    digest = hashlib.sha256(":".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:4], "big")
