"""Which settings of a search mattered: fANOVA over its finished trials.

Hutter, Hoos and Leyton-Brown, "An efficient approach for assessing hyperparameter importance",
ICML 2014: a random forest is fitted to the trials, and the variance of its prediction is shared
out among the dimensions. Optuna computes it; of very many trials PED-ANOVA, which is faster.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any

from orchestrator.jobs.space import exists, label
from orchestrator.jobs.space_text import same
from orchestrator.results.sweep import Importance, Share, SweepTrial, objective_value
from workloads.config.sweep import Choice, Dimension, Objective, SweepConfig

MIN_TRIALS = 4
"""Fewer say nothing of several dimensions."""
_FEW_TRIALS = 20
MOST_FOR_FORESTS = 1000
"""Trials; of more PED-ANOVA tells it."""


def importance(sweep: SweepConfig, trials: Sequence[SweepTrial]) -> Importance:
    """Return how much of the differences in the first objective each dimension accounts for.

    A dimension with a condition is judged among the trials where it exists.
    """
    objective = sweep.objectives[0]
    usable = [
        trial
        for trial in trials
        if trial.ending == "finished" and objective_value(trial, objective) is not None
    ]
    if len(usable) < MIN_TRIALS:
        return Importance(remark=f"needs {MIN_TRIALS} finished trials, and there are {len(usable)}")
    if _is_constant(usable, objective):
        return Importance(remark=f"all trials have the same {objective.metric}")
    found: list[Share] = []
    everywhere = [d for d in sweep.space if not d.when]
    shares = _shares(everywhere, usable, objective)
    found += [Share(name, share, len(usable)) for name, share in shares.items()]
    for dimension in sweep.space:
        if not dimension.when:
            continue
        here = [trial for trial in usable if exists(dimension, trial.values)]
        if len(here) < MIN_TRIALS or _is_constant(here, objective):
            continue
        beside = [d for d in sweep.space if all(exists(d, trial.values) for trial in here)]
        shares = _shares(beside, here, objective)
        if label(dimension) in shares:
            found.append(Share(label(dimension), shares[label(dimension)], len(here)))
    if not found:
        return Importance(remark="no setting had two values in the trials that finished")
    few = len(usable) < _FEW_TRIALS
    remark = f"from {len(usable)} trials only: a rough guide" if few else ""
    return Importance(tuple(sorted(found, key=lambda s: -s.share)), remark)


def _is_constant(trials: Sequence[SweepTrial], objective: Objective) -> bool:
    return len({objective_value(trial, objective) for trial in trials}) == 1


def _shares(
    dimensions: Sequence[Dimension], trials: Sequence[SweepTrial], objective: Objective
) -> dict[str, float]:
    """Return dimension's label -> share of the variance; those that never varied have none."""
    varied = [
        d
        for d in dimensions
        if any(not same(t.values[d.key], trials[0].values[d.key]) for t in trials)
    ]
    if not varied:
        return {}
    if len(varied) == 1:
        return {label(varied[0]): 1.0}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        direction="maximize" if objective.direction == "max" else "minimize"
    )
    distributions = {label(d): _distribution(d, trials) for d in varied}
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={label(d): trial.values[d.key] for d in varied},
                distributions=distributions,
                value=objective_value(trial, objective),
            )
            for trial in trials
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an evaluator is experimental
        evaluator: Any = (
            optuna.importance.FanovaImportanceEvaluator(seed=0)
            if len(trials) <= MOST_FOR_FORESTS
            else optuna.importance.PedAnovaImportanceEvaluator()
        )
        shares = optuna.importance.get_param_importances(
            study, evaluator=evaluator, params=list(distributions)
        )
    return {name: float(share) for name, share in shares.items() if math.isfinite(share)}


def _distribution(dimension: Dimension, trials: Sequence[SweepTrial]) -> Any:
    """Return the range of a dimension; population based training may have gone beyond its ends."""
    import optuna

    domain = dimension.domain
    if isinstance(domain, Choice):
        return optuna.distributions.CategoricalDistribution(list(domain.values))
    seen = [float(trial.values[dimension.key] or 0.0) for trial in trials]
    low, high = min(domain.low, *seen), max(domain.high, *seen)
    return optuna.distributions.FloatDistribution(low, high, log=domain.log)
