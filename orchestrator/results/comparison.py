"""What a comparison is: trainings side by side, cell by cell, seed by seed. Types only.

`collect` reads trainings from the store, `compare` makes a comparison of them, and tables, figures
and reports show it. All numbers come from MLflow; nothing here computes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Scalar = str | int | float | bool | None
Verdict = Literal["better", "worse", "unclear", "too few seeds", ""]


@dataclass(frozen=True)
class Training:
    """One training with its evaluation, if it has one.

    Attributes:
        kind: `eval` for an evaluation of weights that no job of the cluster trained.
        cell: What sets it apart in its study or sweep, seeds aside; empty outside of one.
        state: Of the training, as MLflow has it.
        config: The resolved config, flat, keys with dots.
        metrics: The newest value of each metric that the training recorded, as in MLflow.
        evaluation: The numbers of its evaluation, such as `top1`, without `eval/`.
        facts: What should be the same in all that are compared, beside the config: commit,
            workers, device, how it was evaluated. A comparison warns where it is not.
        published: Top-1 in percent that its recipe names; None if none.
        reused: It was trained for something else than the study that it is shown in.
    """

    job_id: str
    run_id: str
    experiment_id: str
    kind: Literal["train", "trial", "eval"]
    state: str
    recipe: str
    seed: int | None
    cell: str = ""
    is_baseline: bool = False
    config: Mapping[str, Scalar] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    result: Mapping[str, Scalar] = field(default_factory=dict)
    evaluation: Mapping[str, float] = field(default_factory=dict)
    evaluation_job: str = ""
    facts: Mapping[str, Scalar] = field(default_factory=dict)
    published: float | None = None
    reused: bool = False
    commit: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds.

    Attributes:
        deviation: Standard deviation of one training (n - 1 in the denominator); None for n = 1.
        values: By seed, in the order of the trainings.
    """

    mean: float
    deviation: float | None
    n: int
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Delta:
    """Mean difference to the baseline over the seeds that both have.

    Attributes:
        low: Lower end of the 95 % confidence interval (paired t); None below two seeds.
        p: Two-sided p of the paired t test, corrected for the number of cells that have one (Holm);
            None below three seeds.
        verdict: `too few seeds` below three; empty for the baseline itself.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    p: float | None
    verdict: Verdict
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Column:
    """A number that all cells show.

    Attributes:
        key: Name in MLflow, or of the evaluation after `eval/`.
        better: Which way is better; empty where neither is.
        decimals: Digits after the point; None where nobody knows how large it is.
    """

    key: str
    title: str
    unit: str = ""
    better: Literal["higher", "lower", ""] = ""
    decimals: int | None = 2


@dataclass(frozen=True)
class Cell:
    """Trainings that differ in their seeds alone.

    Attributes:
        differs: The keys of the config that are not the same in all cells, and their values here.
        values: By `Column.key`; missing where no training has the number.
        delta: To the baseline, of the metric that is compared; None without a baseline.
        missing: Trainings that have not finished: job id -> state and reason.
    """

    name: str
    is_baseline: bool
    trainings: tuple[Training, ...]
    differs: Mapping[str, Scalar]
    values: Mapping[str, Estimate]
    delta: Delta | None = None
    published: float | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Cells side by side.

    Attributes:
        metric: The column that cells are compared by.
        differing_keys: Keys of the config that are not equal in all cells, in the order to show.
        warnings: What a reader must know: seeds that are missing, other commits, other workers.
    """

    title: str
    metric: Column
    columns: tuple[Column, ...]
    cells: tuple[Cell, ...]
    differing_keys: tuple[str, ...]
    baseline: str = ""
    warnings: tuple[str, ...] = ()
