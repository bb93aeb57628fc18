"""Writes the report of a study as a folder: page, figures, numbers.

The same store gives the same bytes: all times are those of jobs. Whoever opens the folder while
it is written sees each file whole, the old or the new one.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.results import curve_figures, figures, study_page
from orchestrator.results.document import Block, to_html, to_markdown
from orchestrator.results.drawing import inline
from orchestrator.results.exports import to_csv, to_csv_of_cells, to_json
from orchestrator.results.latex import to_latex
from orchestrator.results.study_report import StudyReport
from workloads import durable
from workloads.config.document import dump_document

MARKDOWN, PAGE = "report.md", "report.html"
FIGURES = "figures"


def render_study(report: StudyReport) -> dict[str, bytes]:
    """Return the files of a study's report by their paths in its folder."""
    comparison = report.comparison
    drawn = {
        study_page.DELTAS: figures.deltas(comparison),
        study_page.COST: figures.accuracy_against_cost(comparison),
        study_page.CONVERGENCE: curve_figures.convergence_bands(comparison, report.curves),
        study_page.MATCHING: curve_figures.matching(comparison, report.matches),
    }
    there = {name: files for name, files in drawn.items() if files is not None}
    blocks = study_page.study_page(report, list(there))
    return {
        **render_page(blocks, title=report.facts.question, drawings=there),
        "results.csv": to_csv(comparison).encode(),
        "cells.csv": to_csv_of_cells(comparison).encode(),
        "table.tex": to_latex(comparison).encode(),
        "comparison.json": _json(_numbers_of(report)).encode(),
        "study.yaml": dump_document(dict(report.facts.config)).encode(),
    }


def render_page(
    blocks: list[Block], *, title: str, drawings: Mapping[str, Mapping[str, bytes]]
) -> dict[str, bytes]:
    """Return a page as Markdown and HTML, and its drawings, by their paths.

    Args:
        drawings: By name, the files of each by their ending.
    """
    svgs = {name: inline(files["svg"], name) for name, files in drawings.items()}
    files = {
        MARKDOWN: to_markdown(blocks, figures=FIGURES).encode(),
        PAGE: to_html(blocks, title=title, figures=svgs).encode(),
    }
    for name, kinds in drawings.items():
        files |= {f"{FIGURES}/{name}.{kind}": content for kind, content in kinds.items()}
    return files


def write_folder(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files, each whole or not at all; drawings of an earlier report that are no longer
    among them are removed.

    Raises:
        OSError: The folder cannot be written.
    """
    for path in sorted((folder / FIGURES).glob("*.*")):
        if path.suffix in (".svg", ".pdf") and f"{FIGURES}/{path.name}" not in files:
            path.unlink(missing_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write_file(path, content)


# --- numbers -------------------------------------------------------------------------------------


def _numbers_of(report: StudyReport) -> dict[str, Any]:
    """Return all that the page shows as plain JSON."""
    return {
        "version": 1,
        "study": dataclasses.asdict(report.facts),
        "comparison": to_json(report.comparison),
        "convergence": [dataclasses.asdict(curve) for curve in report.curves],
        "matching_epochs": [dataclasses.asdict(match) for match in report.matches],
    }


def _json(value: Any) -> str:
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """Return a value with null where JSON has no number for it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
