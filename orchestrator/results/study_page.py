"""The page of a study: what was asked, what came out, how sure that is, and how it was done."""

import shlex
from collections.abc import Sequence

from orchestrator.results import methods
from orchestrator.results.comparison import Cell, Comparison, Verdict
from orchestrator.results.curve_figures import match_text
from orchestrator.results.document import (
    Block,
    Bullets,
    Code,
    Figure,
    Heading,
    Paragraph,
    code,
    plain,
)
from orchestrator.results.figures import cost_columns, names_only_best
from orchestrator.results.numbers import delta_text, estimate_text, p_text
from orchestrator.results.study_report import StudyReport
from orchestrator.results.study_tables import (
    cost_table,
    main_table,
    matching_table,
    published_table,
    quality_table,
    trainings_table,
)

DELTAS, COST, CONVERGENCE, MATCHING = "deltas", "cost", "convergence", "matching_epoch"
_MOST_LISTED = 40
_MOST_IN_A_SENTENCE = 12


def study_page(report: StudyReport, figures: Sequence[str]) -> list[Block]:
    """Return the page.

    Args:
        figures: Names of the drawings that there are.
    """
    facts = report.facts
    return [
        Heading(plain(facts.question), level=1),
        Paragraph(_summary(report)),
        *_incomplete(report),
        Heading("Result"),
        *(Paragraph(text) for text in answer(report)),
        main_table(report.comparison),
        *_figure(DELTAS, figures, report),
        *_bear_in_mind(report.comparison),
        *filter(None, [quality_table(report.comparison)]),
        *_cost(report, figures),
        *_convergence(report, figures),
        *_published(report),
        Heading("Methods"),
        *(Paragraph(text) for text in methods.methods(facts, report.comparison)),
        *_hardware(report),
        Heading("To do it again"),
        *_reproduce(report),
        Heading("All trainings"),
        trainings_table(report.comparison),
    ]


def _summary(report: StudyReport) -> str:
    facts, cells = report.facts, report.comparison.cells
    trainings = [t for cell in cells for t in cell.trainings]
    reused = sum(t.reused for t in trainings)
    parts = [
        f"Study {code(facts.job_id)}",
        f"recipe {code(facts.recipe)}",
        f"{len(cells)} cells ({plain(facts.mode)}"
        + (f", only {code(facts.only)}" if facts.only else "")
        + f"), {len(trainings)} trainings"
        + (f", {reused} of them reused from elsewhere" if reused else ""),
        f"submitted {facts.began}" + (f", last job ended {facts.ended}" if facts.ended else ""),
    ]
    return "; ".join(parts) + "."


def _incomplete(report: StudyReport) -> list[Block]:
    """Name first what a reader may not find in the tables."""
    blocks: list[Block] = []
    states = list(report.facts.members.values())
    if not report.facts.is_final:
        ended = sum(state not in ("SCHEDULED", "RUNNING") for state in states)
        blocks.append(
            Paragraph(
                f"The study has not ended: {ended} of {len(states)} jobs have. All below is of "
                "what is there so far.",
                "failure",
            )
        )
    missing = report.missing
    if missing:
        total = sum(len(cell.trainings) for cell in report.comparison.cells)
        blocks.append(
            Paragraph(
                f"In no mean of {report.comparison.metric.title} below: {len(missing)} of {total} "
                "trainings. Their cells have fewer seeds, or none:",
                "failure",
            )
        )
        items = [
            f"{code(job_id)} of {code(cell)}: {plain(reason)}"
            for job_id, (cell, reason) in missing.items()
        ]
        more = len(items) - _MOST_LISTED
        blocks.append(Bullets((*items[:_MOST_LISTED], *[f"and {more} more"] * (more > 0))))
    return blocks


# --- result --------------------------------------------------------------------------------------


def answer(report: StudyReport) -> list[str]:
    """Return what may be said of the question, in a few sentences."""
    comparison, metric = report.comparison, report.comparison.metric
    ranked = report.ranked
    if not ranked:
        return ["No training has a number to compare yet."]
    best, base = ranked[0], report.baseline
    word = "lowest" if metric.better == "lower" else "highest"
    value = estimate_text(best.values[metric.key], metric)
    unit = f" {metric.unit}" if metric.unit else ""
    text = f"The {word} mean {metric.title} is that of {code(best.name)}: {value}{unit}"
    text += f" (n = {best.values[metric.key].n})"
    equal = sum(c.values[metric.key].mean == best.values[metric.key].mean for c in ranked) - 1
    text += f", and of {equal} more" if equal else ""
    if base is not None and base is not best and metric.key in base.values:
        reference = estimate_text(base.values[metric.key], metric)
        text += f"; the baseline {code(base.name)} has {reference}{unit}"
        text += f" (n = {base.values[metric.key].n})"
    sentences = [text + "."]
    for verdict, words in (
        ("better", "Better than the baseline"),
        ("worse", "Worse than the baseline"),
        ("unclear", "Not told apart from the baseline by these seeds, which does not say equal"),
        ("too few seeds", "Too few seeds for a verdict"),
    ):
        cells = _with_verdict(comparison, verdict)  # type: ignore[arg-type]  # literals above
        if cells:
            some = cells[:_MOST_IN_A_SENTENCE]
            named = ", ".join(f"{code(c.name)} ({_evidence(c, comparison)})" for c in some)
            more = f" and {len(cells) - len(some)} more" if len(cells) > len(some) else ""
            sentences.append(f"**{words}:** {named}{more}.")
    return sentences


def _with_verdict(comparison: Comparison, verdict: Verdict) -> list[Cell]:
    return [
        cell
        for cell in comparison.cells
        if cell.delta is not None and cell.delta.verdict == verdict and not cell.is_baseline
    ]


def _evidence(cell: Cell, comparison: Comparison) -> str:
    delta = cell.delta
    assert delta is not None
    sign = "" if delta.p is not None and delta.p < 0.001 else "= "
    p = f", p {sign}{p_text(delta.p)}" if delta.p is not None else ""
    return f"{delta_text(delta, comparison.metric)}{p}, n = {delta.n}"


def _bear_in_mind(comparison: Comparison) -> list[Block]:
    if not comparison.warnings:
        return []
    return [
        Heading("To bear in mind", level=3),
        Bullets(tuple(plain(text[:1].upper() + text[1:]) for text in comparison.warnings)),
    ]


# --- cost, convergence, published ----------------------------------------------------------------


def _cost(report: StudyReport, figures: Sequence[str]) -> list[Block]:
    table = cost_table(report.comparison)
    if table is None:
        return []
    return [Heading("Accuracy and cost"), *_figure(COST, figures, report), table]


def _convergence(report: StudyReport, figures: Sequence[str]) -> list[Block]:
    if not report.curves:
        return []
    blocks: list[Block] = [Heading("Convergence"), *_figure(CONVERGENCE, figures, report)]
    if len(report.matches) > 1:
        blocks += [*_figure(MATCHING, figures, report), matching_table(report.matches)]
    return blocks


def _published(report: StudyReport) -> list[Block]:
    table = published_table(report.comparison)
    if table is None:
        return []
    heading = Heading("Beside published results")
    return [heading, table, Paragraph(methods.published_text(report.facts, report.comparison))]


# --- how it was done -----------------------------------------------------------------------------


def _hardware(report: StudyReport) -> list[Block]:
    text = methods.hardware_text(report.facts)
    return [Paragraph(text)] if text else []


def _reproduce(report: StudyReport) -> list[Block]:
    facts = report.facts
    commits = ", ".join(code(commit) for commit in facts.commits) or "an unknown commit"
    return [
        Paragraph(
            f"The code was at {commits}. `study.yaml` beside this page is the study as it was "
            "submitted; the same study again trains only what is missing:"
        ),
        Code(f"gcpctl submit ablation study.yaml{_only(facts.only)}"),
        Paragraph(
            "`results.csv` has a row for each training and `cells.csv` one for each cell, "
            "`comparison.json` all that is shown here, none of them rounded; `table.tex` is the "
            "table for LaTeX, and `figures` has each drawing as SVG and PDF."
        ),
    ]


def _only(patterns: str) -> str:
    """Return the options that cut a study down to some cells."""
    return "".join(f" --only {shlex.quote(pattern)}" for pattern in patterns.split())


def _figure(name: str, drawn: Sequence[str], report: StudyReport) -> list[Block]:
    if name not in drawn:
        return []
    comparison, metric = report.comparison, report.comparison.metric
    n = _n_text(name, report)
    base = code(comparison.baseline)
    captions = {
        DELTAS: f"Difference of each cell to {base} in {metric.title}: mean over seeds (diamond; "
        "filled where the cell is better or worse), 95 % confidence interval of the paired t "
        f"distribution, not corrected for the number of cells (bar), each seed (dots); {n}.",
        COST: f"{metric.title[:1].upper()}{metric.title[1:]} against "
        f"{' and '.join(c.title for c in cost_columns(comparison))}: mean ± standard deviation "
        f"over seeds; {n}.{_about_front(comparison)}",
        CONVERGENCE: "Validation top-1 by epoch: mean over seeds, band of one standard deviation "
        f"above and below; {n}. Dashed: the baseline. The axis does not begin at 0.",
        MATCHING: "Epoch at which the mean over seeds first reaches the final validation top-1 of "
        f"{base} (marker), and that of each seed (ticks); grey: all epochs of the training; {n}.",
    }
    return [Figure(name, plain(_alt(name, report)), captions[name])]


def _about_front(comparison: Comparison) -> str:
    """Return what the line of a figure of costs joins, and which points it names."""
    if not comparison.metric.better:
        return ""
    text = " The grey line joins the cells that no other one reaches at the same or a lower cost"
    return text + ("; they and the baseline are named." if names_only_best(comparison) else ".")


def _n_text(name: str, report: StudyReport) -> str:
    """Return over how many seeds the means of a figure are."""
    key, cells = report.comparison.metric.key, report.comparison.cells
    if name == DELTAS:
        counts = {c.delta.n for c in cells if c.delta is not None and not c.is_baseline}
    elif name == COST:
        counts = {c.values[key].n for c in cells if key in c.values}
    else:
        counts = {curve.n for curve in report.curves}
    low, high = min(counts), max(counts)
    return f"n = {low} for each cell" if low == high else f"n from {low} to {high} by cell"


def _alt(name: str, report: StudyReport) -> str:
    """Return a figure in words, for those who do not see it."""
    comparison = report.comparison
    if name == DELTAS:
        shown = [c for c in comparison.cells if c.delta is not None and not c.is_baseline]
        return "Differences: " + "; ".join(f"{c.name} {_evidence(c, comparison)}" for c in shown)
    if name == MATCHING:
        return "Matching epochs: " + "; ".join(f"{m.cell} {match_text(m)}" for m in report.matches)
    if name == CONVERGENCE:
        ends = [f"{c.cell} {c.final:.2f} %" for c in report.curves]
        return "Validation top-1 by epoch, which ends at: " + "; ".join(ends)
    return f"{comparison.metric.title} of each cell against its cost; the numbers are in the tables"
