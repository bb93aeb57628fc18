"""How fast cells learn: mean curves over seeds, and the epoch at which they match the baseline.

"Matching epoch" is the measure of Wang et al. (CVPR 2020, "What Deep CNNs Benefit from Global
Covariance Pooling"): the first epoch at which a network reaches the final accuracy of the one
that it is compared with. Pure: histories in, numbers out.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.results.comparison import Cell

History = Sequence[tuple[int, float]]
"""Points of a metric as (epoch, value), as the store has them."""


@dataclass(frozen=True)
class Convergence:
    """Validation top-1 of a cell by epoch.

    Attributes:
        epochs: Those at which every seed was validated, ascending.
        mean: Over seeds, in percent, one per epoch.
        deviation: Standard deviation over seeds (n - 1), one per epoch; empty for one seed.
        seeds: Of each training.
        by_seed: Epoch -> percent, of each training.
    """

    cell: str
    is_baseline: bool
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    seeds: tuple[int | None, ...]
    by_seed: tuple[Mapping[int, float], ...]

    @property
    def n(self) -> int:
        """Number of trainings."""
        return len(self.by_seed)

    @property
    def final(self) -> float:
        """Mean over seeds of the last validation, in percent."""
        return statistics.fmean(curve[max(curve)] for curve in self.by_seed)

    @property
    def last_epoch(self) -> int:
        """The last epoch that any seed was validated at."""
        return max(max(curve) for curve in self.by_seed)


@dataclass(frozen=True)
class Match:
    """When a cell first reached the final top-1 of the baseline.

    Attributes:
        target: Final top-1 of the baseline, the mean over its seeds, in percent.
        epoch: First epoch at which the mean over seeds reached it; None if it never did.
        by_seed: The same of each training.
        of_epochs: Epochs that the cell was trained for.
        baseline_epochs: Epochs that the baseline was trained for.
    """

    cell: str
    is_baseline: bool
    target: float
    epoch: int | None
    by_seed: tuple[int | None, ...]
    of_epochs: int
    baseline_epochs: int


def convergence(cell: Cell, histories: Mapping[str, History]) -> Convergence | None:
    """Return a cell's curve over its finished trainings; None if no training has any point.

    Those that were not evaluated have one too. Of a seed that was trained twice the newest counts.

    Args:
        cell: The cell.
        histories: Points of `val/top1` by the run ids of trainings.
    """
    finished = [t for t in cell.trainings if t.state == "FINISHED"]
    newest = {t.run_id if t.seed is None else t.seed: t for t in finished}
    curves = [(t.seed, _by_epoch(histories.get(t.run_id, ()))) for t in newest.values()]
    curves = [(seed, curve) for seed, curve in curves if curve]
    if not curves:
        return None
    # A mean over those that got so far would jump where one ends early.
    shared = sorted(set.intersection(*(set(curve) for _, curve in curves)))
    columns = [[curve[epoch] for _, curve in curves] for epoch in shared]
    return Convergence(
        cell=cell.name,
        is_baseline=cell.is_baseline,
        epochs=tuple(shared),
        mean=tuple(statistics.fmean(values) for values in columns),
        deviation=tuple(statistics.stdev(v) for v in columns) if len(curves) > 1 else (),
        seeds=tuple(seed for seed, _ in curves),
        by_seed=tuple(curve for _, curve in curves),
    )


def _by_epoch(points: History) -> dict[int, float]:
    """Return the newest finite value of each epoch."""
    newest = dict(points)
    return {epoch: newest[epoch] for epoch in sorted(newest) if math.isfinite(newest[epoch])}


def matching_epochs(curves: Sequence[Convergence]) -> tuple[Match, ...]:
    """Return when each cell matched the baseline; nothing where the baseline has no curve."""
    base = next((curve for curve in curves if curve.is_baseline), None)
    if base is None:
        return ()
    target = base.final
    return tuple(
        Match(
            cell=curve.cell,
            is_baseline=curve.is_baseline,
            target=target,
            epoch=_first(dict(zip(curve.epochs, curve.mean, strict=True)), target),
            by_seed=tuple(_first(seed, target) for seed in curve.by_seed),
            of_epochs=curve.last_epoch,
            baseline_epochs=base.last_epoch,
        )
        for curve in curves
    )


def _first(curve: Mapping[int, float], target: float) -> int | None:
    """Return the first epoch at which a curve is not below a value."""
    return next((epoch for epoch in sorted(curve) if curve[epoch] >= target - 1e-9), None)
