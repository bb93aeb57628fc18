"""A finished study in a few lines: its note in the MLflow UI, and its reason in the terminal."""

from collections.abc import Sequence

from orchestrator.results.document import to_markdown
from orchestrator.results.links import artifact_page
from orchestrator.results.numbers import estimate_text, heading
from orchestrator.results.study_page import answer
from orchestrator.results.study_report import StudyReport
from orchestrator.results.study_tables import main_table

_HEADING = "## What it found"
_LIMIT = 7000
"""Characters; a tag of MLflow takes 8000."""


def sentence(report: StudyReport) -> str:
    """Return `best pooling=isqrt: top-1 98.70 ± 0.21 %; 1 of 15 trainings failed`."""
    metric = report.comparison.metric
    parts = []
    if report.ranked:
        best = report.ranked[0]
        number = estimate_text(best.values[metric.key], metric)
        unit = f" {metric.unit}" if metric.unit == "%" else ""
        word = "best" if metric.better else "highest"
        parts.append(f"{word} {best.name}: {metric.title} {number}{unit}")
    total = sum(len(cell.trainings) for cell in report.comparison.cells)
    if report.missing:
        parts.append(f"{len(report.missing)} of {total} trainings missing")
    return "; ".join(parts) or f"no training has a {heading(metric)}"


def note(report: StudyReport, *, before: str, files: Sequence[str], folder: str) -> str:
    """Return the study's note: what it had said before, and what it found.

    Args:
        before: The note so far; what an earlier report said in it is replaced.
        files: Names of the report's files that the server has.
        folder: Their folder among the study's artifacts.
    """
    facts = report.facts
    links = [
        f"[{name}]({artifact_page(facts.experiment_id, facts.run_id, f'{folder}/{name}')})"
        for name in files
        if "/" not in name
    ]
    start = before.partition(_HEADING)[0].rstrip()
    parts = [_HEADING, *answer(report), to_markdown([main_table(report.comparison)]).strip()]
    if len("\n\n".join([start, *parts])) > _LIMIT:  # hundreds of cells
        parts = [_HEADING, answer(report)[0][:_LIMIT]]
        start = start[: _LIMIT - len("\n\n".join(parts))]
    if links:
        parts.append("Files: " + ", ".join(links))
    return "\n\n".join(filter(None, (start, *parts)))
