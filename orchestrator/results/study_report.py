"""All that a study's report shows, gathered from the store. Drawing and writing come after."""

from dataclasses import dataclass

from orchestrator.jobs.errors import ConflictError
from orchestrator.jobs.job import Job
from orchestrator.jobs.store import JobStore
from orchestrator.results.collect import collect
from orchestrator.results.compare import compare
from orchestrator.results.comparison import Cell, Comparison
from orchestrator.results.convergence import Convergence, Match, convergence, matching_epochs
from orchestrator.results.study_facts import StudyFacts, study_facts

CURVE = "val/top1"
"""What convergence is shown of: trainings record it at each epoch."""


@dataclass(frozen=True)
class StudyReport:
    """A study with its numbers.

    Attributes:
        curves: Of the cells that have any, in the comparison's order.
        matches: Empty where the baseline has no curve.
    """

    facts: StudyFacts
    comparison: Comparison
    curves: tuple[Convergence, ...] = ()
    matches: tuple[Match, ...] = ()

    @property
    def missing(self) -> dict[str, tuple[str, str]]:
        """Trainings that no mean counts: job id -> cell, and state with its reason."""
        return {
            job_id: (cell.name, reason)
            for cell in self.comparison.cells
            for job_id, reason in cell.missing.items()
        }

    @property
    def ranked(self) -> tuple[Cell, ...]:
        """The cells that have a number to compare, the best first."""
        key = self.comparison.metric.key
        sign = 1.0 if self.comparison.metric.better == "lower" else -1.0
        there = [cell for cell in self.comparison.cells if key in cell.values]
        return tuple(sorted(there, key=lambda cell: sign * cell.values[key].mean))

    @property
    def baseline(self) -> Cell | None:
        """The cell that the others are compared with."""
        return next((cell for cell in self.comparison.cells if cell.is_baseline), None)


def gather(store: JobStore, parent: Job, *, metric: str = "") -> StudyReport:
    """Read a study from the store.

    Args:
        parent: A job of kind `ablation`.
        metric: What cells are compared by; empty takes the study's.

    Raises:
        NotFoundError: The study has no trainings yet.
        ConflictError: It is no study.
    """
    if parent.kind != "ablation":
        raise ConflictError(
            f"{parent.job_id} is a {parent.kind} job, not a study",
            f"see its numbers with: gcpctl compare {parent.job_id}",
        )
    facts = study_facts(store, parent)
    trainings = collect(store, [parent.job_id])
    comparison = compare(trainings, metric or facts.metric, title=facts.question)
    run_ids = [t.run_id for t in trainings if t.state == "FINISHED"]
    histories = store.metric_histories(run_ids, CURVE)
    found = [convergence(cell, histories) for cell in comparison.cells]
    curves = tuple(curve for curve in found if curve is not None)
    return StudyReport(facts, comparison, curves, matching_epochs(curves))
