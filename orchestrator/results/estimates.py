"""Means over seeds, and paired differences with what chance alone would make of them.

Trainings with equal seeds see the same images in the same order, so cells are compared seed by
seed: the differences scatter less than the numbers. The test is Student's paired t test; where
several cells are compared with one baseline, Holm's step-down correction (Holm, 1979) keeps the
chance of a single false verdict among them below 5 %.
"""

import math
import statistics
from collections.abc import Sequence

from orchestrator.results.comparison import Column, Delta, Estimate, Verdict

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
"""A verdict needs a corrected p below it."""
LEAST_SEEDS = 3
"""Fewer give no p and no verdict."""
_NO_RESULT = 1e300
"""MLflow's databases store an infinity as the largest number there is; and sums of such numbers
overflow."""
_SAME = 1e-9


def is_number(value: float | None) -> bool:
    """Whether there is a value and it is finite."""
    return value is not None and math.isfinite(value) and abs(value) < _NO_RESULT


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean and standard deviation of finite values, one per training.

    Raises:
        ValueError: There are none.
    """
    if not values:
        raise ValueError("no values to take a mean of")
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Estimate(statistics.fmean(values), deviation, len(values), tuple(values))


def paired_delta(differences: Sequence[float]) -> Delta:
    """Return the mean of paired differences with its 95 % interval and the paired t test's p.

    mean ± t(0.975, n - 1) * s / sqrt(n), with s the differences' standard deviation. Differences
    that are all equal, as accuracies on few images may be, have no s to judge them by: they get
    neither interval nor p, unless all are 0.

    Args:
        differences: Cell minus baseline, one per seed that both have.

    Returns:
        The difference with an uncorrected p and a verdict still to be given (`judge`).
    """
    n = len(differences)
    if n == 0:
        return Delta(math.nan, None, None, 0, None, "too few seeds")
    mean, values = statistics.fmean(differences), tuple(differences)
    verdict: Verdict = "unclear" if n >= LEAST_SEEDS else "too few seeds"
    if n == 1:
        return Delta(mean, None, None, 1, None, verdict, values)
    deviation = statistics.stdev(differences)
    if deviation <= _SAME * max(map(abs, differences)):
        low, p = (0.0, 1.0) if mean == 0.0 else (None, None)
        return Delta(mean, low, low, n, p if n >= LEAST_SEEDS else None, verdict, values)
    from scipy.special import stdtr, stdtrit  # Student's t: distribution function and inverse

    error = deviation / math.sqrt(n)
    half = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * error
    p = 2 * float(stdtr(n - 1, -abs(mean) / error)) if n >= LEAST_SEEDS else None
    return Delta(mean, mean - half, mean + half, n, p, verdict, values)


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number, in the same order (Holm, 1979).

    The smallest of m is multiplied by m, the next by m - 1, and so on; none may be below one that
    was smaller, nor above 1.
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected = [0.0] * len(values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = largest
    return corrected


def judge(delta: Delta, p: float | None, better: Column) -> Delta:
    """Return a difference with its corrected p, and what may be said of it.

    Args:
        p: Of `holm`; None where there is none.
        better: The column that is compared, which knows the good direction.
    """
    verdict = delta.verdict
    if p is not None and verdict != "too few seeds":
        if not better.better:
            verdict = ""
        elif p < SIGNIFICANCE:
            verdict = "better" if (delta.mean > 0) == (better.better == "higher") else "worse"
        else:
            verdict = "unclear"
    return Delta(delta.mean, delta.low, delta.high, delta.n, p, verdict, delta.values)
