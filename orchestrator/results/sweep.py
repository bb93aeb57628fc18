"""What a sweep came to: its best trial, its Pareto front, what it cost, and all trials as a table.

Pure functions of the trials. The sweep's driver calls them with what its journal holds, the
terminal with the runs in MLflow (`trial_of`). `sweep_recipe` and `sweep_importance` do the rest.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.jobs.job import TAG_PRUNED, TAG_TRIAL, TAG_VALUES, Job
from orchestrator.jobs.space import trial_cell
from orchestrator.jobs.space_text import format_value
from orchestrator.jobs.spec import Resources
from orchestrator.jobs.states import State
from orchestrator.jobs.trial_store import TAG_SECONDS
from orchestrator.results.estimates import is_number
from orchestrator.results.exports import as_text
from workloads.config.sweep import Objective, SweepConfig, Value
from workloads.config.train import TrainConfig

Ending = Literal["finished", "pruned", "failed", "running"]
ENDINGS: tuple[Ending, ...] = ("finished", "pruned", "failed", "running")


@dataclass(frozen=True)
class SweepTrial:
    """One trial as the result sees it.

    Attributes:
        number: From 0, in the order of creation.
        values: What the search chose: key -> value.
        metrics: The newest value of each metric.
        ending: `pruned` was ended by the scheduler; `running` has not ended.
        epochs: Epochs completed.
        seconds: Time that it held its workers.
        reason: Why it ended as it did; empty for one that finished.
        run_id: Its run in MLflow; empty if unknown.
    """

    number: int
    values: Mapping[str, Value]
    metrics: Mapping[str, float]
    ending: Ending
    epochs: int = 0
    seconds: float = 0.0
    reason: str = ""
    run_id: str = ""

    @property
    def name(self) -> str:
        """Such as `t007`."""
        return f"t{self.number:03d}"


@dataclass(frozen=True)
class Cost:
    """What trials took, by how they ended.

    Attributes:
        trials: Ending -> number of trials.
        cpu_s: Ending -> seconds of CPU cores that were held.
        gpu_s: Ending -> seconds of GPUs that were held.
        epochs: Epochs trained in all.
        epochs_spared: Epochs that pruned trials were not trained.
    """

    trials: Mapping[Ending, int]
    cpu_s: Mapping[Ending, float]
    gpu_s: Mapping[Ending, float]
    epochs: int
    epochs_spared: int

    @property
    def total_cpu_s(self) -> float:
        """Seconds of CPU cores of all trials."""
        return sum(self.cpu_s.values())

    @property
    def total_gpu_s(self) -> float:
        """Seconds of GPUs of all trials."""
        return sum(self.gpu_s.values())


@dataclass(frozen=True)
class Share:
    """How much of the differences between trials a dimension accounts for.

    Attributes:
        label: The dimension, with its condition if it has one.
        share: Of the variance, from 0 to 1; of the trials where it exists.
        trials: How many trials that was told from.
    """

    label: str
    share: float
    trials: int


@dataclass(frozen=True)
class Importance:
    """Which dimensions mattered, the most important first.

    Attributes:
        shares: Empty where it cannot be told.
        remark: Why it cannot be told, or how it was.
    """

    shares: tuple[Share, ...] = ()
    remark: str = ""


def trial_of(run: Job) -> SweepTrial:
    """Return a trial from its run, as `store.trials` gives it."""
    spent = run.tags.get(TAG_SECONDS) or run.metrics.get("time/train_s", 0.0)
    return SweepTrial(
        number=int(run.tags.get(TAG_TRIAL, "0")),
        values=json.loads(run.tags.get(TAG_VALUES, "{}")),
        metrics=run.metrics,
        ending=_ending(run),
        epochs=run.epoch,
        seconds=float(spent),
        reason=run.reason,
        run_id=run.run_id,
    )


def objective_value(trial: SweepTrial, objective: Objective) -> float | None:
    """Return what a trial reached; None if it did not, or not in numbers."""
    value = trial.metrics.get(objective.metric)
    return value if is_number(value) else None


def ranked(trials: Iterable[SweepTrial], objectives: Sequence[Objective]) -> list[SweepTrial]:
    """Return trials from good to bad by the first objective: the finished, the others, the failed.

    A pruned trial comes after all that finished: it was worse than others at the same epoch, and
    a number from an early epoch is no result. Of equal ones the earlier comes first.
    """
    first = objectives[0]
    sign = -1.0 if first.direction == "max" else 1.0

    def place(trial: SweepTrial) -> tuple[int, float, int]:
        value = objective_value(trial, first)
        group = {"finished": 0, "running": 1, "pruned": 1, "failed": 2}[trial.ending]
        worst = value is None or group == 2
        return (group, math.inf if worst or value is None else sign * value, trial.number)

    return sorted(trials, key=place)


def best_trial(trials: Iterable[SweepTrial], objectives: Sequence[Objective]) -> SweepTrial | None:
    """Return the best trial by the first objective; None while none finished with a number."""
    order = ranked((t for t in trials if t.ending == "finished"), objectives)
    return order[0] if order and objective_value(order[0], objectives[0]) is not None else None


def pareto_front(trials: Iterable[SweepTrial], objectives: Sequence[Objective]) -> list[SweepTrial]:
    """Return the finished trials that no other beats in one objective and equals in the rest.

    The best by the first objective comes first.
    """
    costs: dict[int, tuple[float, ...]] = {}
    finished = [trial for trial in trials if trial.ending == "finished"]
    for trial in finished:
        values = [objective_value(trial, objective) for objective in objectives]
        numbers = [value for value in values if value is not None]
        if len(numbers) == len(objectives):
            signs = [-1.0 if objective.direction == "max" else 1.0 for objective in objectives]
            costs[trial.number] = tuple(s * n for s, n in zip(signs, numbers, strict=True))
    front = {
        number
        for number, own in costs.items()
        if not any(
            other != own and all(o <= v for o, v in zip(other, own, strict=True))
            for other in costs.values()
        )
    }
    return ranked((trial for trial in finished if trial.number in front), objectives)


def cost(sweep: SweepConfig, trials: Iterable[SweepTrial], resources: Resources) -> Cost:
    """Return what the trials took.

    Args:
        resources: Of the sweep's job: what each worker of a trial holds.
    """
    numbers: dict[Ending, int] = dict.fromkeys(ENDINGS, 0)
    held_s: dict[Ending, float] = dict.fromkeys(ENDINGS, 0.0)
    epochs = spared = 0
    usual_epochs = sweep.base.get("epochs", TrainConfig.model_fields["epochs"].default)
    for trial in trials:
        numbers[trial.ending] += 1
        held_s[trial.ending] += trial.seconds * sweep.trial_workers
        epochs += trial.epochs
        asked = trial.values.get("epochs", usual_epochs)
        if trial.ending == "pruned" and isinstance(asked, int):
            spared += max(asked - trial.epochs, 0)
    return Cost(
        trials=numbers,
        cpu_s={k: v * resources.cpus_per_worker for k, v in held_s.items()},
        gpu_s={k: v * resources.gpus_per_worker for k, v in held_s.items()},
        epochs=epochs,
        epochs_spared=spared,
    )


def result(
    sweep: SweepConfig,
    trials: Sequence[SweepTrial],
    resources: Resources,
    importance: Importance,
) -> dict[str, Any]:
    """Return a sweep's result as JSON, for the tag of its run; `sweep_status` shows it."""
    spent = cost(sweep, trials, resources)
    best = best_trial(trials, sweep.objectives)
    front = pareto_front(trials, sweep.objectives) if len(sweep.objectives) > 1 else []
    return {
        "trials": {ending: number for ending, number in spent.trials.items() if number},
        "best": _brief(best, sweep.objectives) if best is not None else None,
        "front": [_brief(trial, sweep.objectives) for trial in front[:_MOST_OF_FRONT]],
        "importance": {share.label: round(share.share, 4) for share in importance.shares},
        "importance_remark": importance.remark,
        "cpu_s": round(spent.total_cpu_s, 1),
        "gpu_s": round(spent.total_gpu_s, 1),
        "epochs": spent.epochs,
        "epochs_spared": spent.epochs_spared,
    }


def table(
    sweep: SweepConfig, trials: Iterable[SweepTrial]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return header and rows of all trials, the best first; numbers rounded for people."""
    metrics = [objective.metric for objective in sweep.objectives]
    keys = _keys(sweep)
    header = ("trial", *metrics, *keys, "epochs", "seconds", "ended")
    rows = []
    for trial in ranked(trials, sweep.objectives):
        numbers = [objective_value(trial, objective) for objective in sweep.objectives]
        rows.append(
            (
                trial.name,
                *("-" if number is None else f"{number:.5g}" for number in numbers),
                *(format_value(trial.values[k]) if k in trial.values else "" for k in keys),
                str(trial.epochs),
                f"{trial.seconds:.1f}",
                trial.ending,
            )
        )
    return header, rows


def trials_csv(sweep: SweepConfig, trials: Iterable[SweepTrial]) -> str:
    """Return all trials as CSV, in the order of creation, every number in full."""
    ordered = sorted(trials, key=lambda trial: trial.number)
    keys = _keys(sweep)
    metrics = sorted({metric for trial in ordered for metric in trial.metrics})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "ended", "epochs", "seconds", *keys, *metrics, "reason", "run_id"])
    for trial in ordered:
        writer.writerow(
            [
                trial.number,
                trial.ending,
                trial.epochs,
                repr(trial.seconds),
                *(_as_json(trial.values[key]) if key in trial.values else "" for key in keys),
                *(repr(trial.metrics[m]) if m in trial.metrics else "" for m in metrics),
                as_text(trial.reason),
                trial.run_id,
            ]
        )
    return text.getvalue()


_MOST_OF_FRONT = 12
"""Trials of a front that fit into a tag; the table has all."""


def _brief(trial: SweepTrial, objectives: Sequence[Objective]) -> dict[str, Any]:
    return {
        "trial": trial.name,
        "run_id": trial.run_id,
        "cell": trial_cell(trial.values),
        "values": dict(trial.values),
        "metrics": {
            o.metric: v for o in objectives if (v := objective_value(trial, o)) is not None
        },
    }


def _keys(sweep: SweepConfig) -> list[str]:
    return list(dict.fromkeys(dimension.key for dimension in sweep.space))


def _as_json(value: Value) -> str:
    return as_text(value) if isinstance(value, str) else json.dumps(value)


def _ending(run: Job) -> Ending:
    if run.tags.get(TAG_PRUNED) == "true":
        return "pruned"
    if run.state is State.FINISHED:
        return "finished"
    return "failed" if run.state is State.FAILED else "running"
