"""The page of a sweep, and the files of its report."""

from collections.abc import Mapping

from orchestrator.jobs.space_text import format_dimension, format_value
from orchestrator.results import sweep_figures
from orchestrator.results.cells import short_names
from orchestrator.results.columns import column_of
from orchestrator.results.document import (
    Block,
    Bullets,
    Code,
    Figure,
    Heading,
    Paragraph,
    Table,
    code,
    plain,
)
from orchestrator.results.estimates import is_number
from orchestrator.results.numbers import NOTHING, number_text
from orchestrator.results.report import render_page
from orchestrator.results.sweep import SweepTrial, objective_value, table, trials_csv
from orchestrator.results.sweep_importance import MOST_FOR_FORESTS
from orchestrator.results.sweep_recipe import FILE
from orchestrator.results.sweep_report import SweepReport

_MOST_ROWS = 30
_WAYS = {"tpe": "TPE (tree-structured Parzen estimators)", "random": "at random", "grid": "a grid"}


def render_sweep(report: SweepReport) -> dict[str, bytes]:
    """Return the files of a sweep's report by their paths in its folder."""
    sweep, trials = report.sweep, report.trials
    drawn = {
        "history": sweep_figures.history(sweep, trials),
        "parallel": sweep_figures.parallel(sweep, trials),
        "importance": sweep_figures.importance_bars(report.importance),
        "front": sweep_figures.front(sweep, trials, report.front),
    }
    there = {name: files for name, files in drawn.items() if files is not None}
    files = render_page(sweep_page(report, there), title=f"Sweep {report.job_id}", drawings=there)
    files["trials.csv"] = trials_csv(sweep, trials).encode()
    if report.recipe:
        files[FILE] = report.recipe.encode()
    return files


def sweep_page(report: SweepReport, figures: Mapping[str, object]) -> list[Block]:
    """Return the page.

    Args:
        figures: The drawings that there are, by name.
    """
    return [
        Heading(f"Sweep {code(report.job_id)}", level=1),
        Paragraph(_summary(report)),
        *_incomplete(report),
        Heading("Best trial"),
        *_best(report),
        *_drawn("history", figures, report),
        Heading("Settings"),
        *_drawn("parallel", figures, report),
        *_drawn("importance", figures, report),
        *_importance_words(report),
        *_front(report, figures),
        Heading("How it was searched"),
        Bullets(tuple(code(format_dimension(d)) for d in report.sweep.space)),
        Paragraph(_method(report)),
        Paragraph(_cost(report)),
        Heading("Trials"),
        _trials(report),
    ]


def _summary(report: SweepReport) -> str:
    sweep = report.sweep
    goals = ", ".join(f"{code(o.metric)} ({o.direction})" for o in sweep.objectives)
    text = f"Recipe {code(report.recipe_name)}; {goals}; submitted {report.began}"
    return text + (f", ended {report.ended}." if report.ended else ".")


def _incomplete(report: SweepReport) -> list[Block]:
    blocks: list[Block] = []
    counts = report.cost.trials
    if not report.is_final:
        ended = len(report.trials) - counts.get("running", 0)
        text = f"The sweep has not ended: {ended} trials have. All below is of what is there."
        blocks.append(Paragraph(text, "failure"))
    failed = [trial for trial in report.trials if trial.ending == "failed"]
    if failed:
        blocks.append(Paragraph(f"{len(failed)} of {len(report.trials)} trials failed:", "warning"))
        items = [f"{code(t.name)}: {plain(t.reason)}" for t in failed[:_MOST_ROWS]]
        more = len(failed) - _MOST_ROWS
        blocks.append(Bullets((*items, *[f"and {more} more"] * (more > 0))))
    return blocks


def _best(report: SweepReport) -> list[Block]:
    best = report.best
    if best is None:
        return [Paragraph("No trial has finished with a number yet.")]
    reached = ", ".join(
        f"{code(o.metric)} {_number(best, o.metric)}" for o in report.sweep.objectives
    )
    return [
        Paragraph(f"{code(best.name)} reached {reached} with {_settings(best)}."),
        Paragraph(
            "It is the best of many on the images that it was chosen by, so train it again with "
            f"other seeds before reporting a number. As a recipe (`{FILE}`):"
        ),
        Code(report.recipe.rstrip()),
    ]


def _importance_words(report: SweepReport) -> list[Block]:
    if report.importance.remark:
        return [Paragraph(f"Importance of settings: {plain(report.importance.remark)}.")]
    if not report.importance.shares:
        return [Paragraph("How much each setting mattered is told when the sweep has ended.")]
    return []


def _front(report: SweepReport, figures: Mapping[str, object]) -> list[Block]:
    if not report.front:
        return []
    metrics = [objective.metric for objective in report.sweep.objectives]
    rows = tuple(
        (code(t.name), *(_number(t, m) for m in metrics), _settings(t)) for t in report.front
    )
    caption = "The trials that no other one beats in one objective without being worse in another."
    header = ("trial", *map(plain, metrics), "settings")
    return [
        Heading("Pareto front"),
        *_drawn("front", figures, report),
        Table(header, rows, caption),
    ]


def _number(trial: SweepTrial, metric: str) -> str:
    value = trial.metrics.get(metric)
    return (
        NOTHING if value is None or not is_number(value) else number_text(value, column_of(metric))
    )


def _settings(trial: SweepTrial) -> str:
    return ", ".join(code(f"{key}={format_value(v)}") for key, v in trial.values.items())


def _method(report: SweepReport) -> str:
    sweep = report.sweep
    text = f"Searched by {_WAYS[sweep.search]} with seed {sweep.seed}"
    if sweep.scheduler is not None:
        text += f"; trials that fell behind were ended by {code(sweep.scheduler.name)}"
    text += f"; each trial was trained by {sweep.trial_workers} worker"
    text += "s" if sweep.trial_workers > 1 else ""
    return f"{text}. The code was at {code(report.commit) or 'an unknown commit'}."


def _cost(report: SweepReport) -> str:
    spent = report.cost
    counts = ", ".join(f"{number} {ending}" for ending, number in spent.trials.items() if number)
    text = f"{len(report.trials)} trials ({counts or 'none'}) of {spent.epochs:,} epochs together"
    if spent.epochs_spared:
        text += f"; ending trials early spared {spent.epochs_spared:,} epochs"
    text += f". They held CPU cores for {spent.total_cpu_s:,.0f} s"
    return text + (f" and GPUs for {spent.total_gpu_s:,.0f} s." if spent.total_gpu_s else ".")


def _trials(report: SweepReport) -> Table:
    header, rows = table(report.sweep, report.trials)
    shown = tuple((code(row[0]), *map(plain, row[1:])) for row in rows[:_MOST_ROWS])
    caption = "All trials, the best first."
    if len(rows) > _MOST_ROWS:
        caption = f"The best {_MOST_ROWS} of {len(rows)} trials; all are in `trials.csv`."
    short = short_names([d.key for d in report.sweep.space])
    return Table(tuple(plain(short.get(name, name)) for name in header), shown, caption)


def _way_of_importance(report: SweepReport) -> str:
    return "fANOVA" if report.cost.trials["finished"] <= MOST_FOR_FORESTS else "PED-ANOVA"


def _drawn(name: str, figures: Mapping[str, object], report: SweepReport) -> list[Block]:
    if name not in figures:
        return []
    first = report.sweep.objectives[0]
    metric = code(first.metric)
    n = sum(objective_value(trial, first) is not None for trial in report.trials)
    captions = {
        "history": f"What each trial reached in {metric}, and the best of the finished ones so "
        f"far; n = {n} trials. The worst quarter may lie outside.",
        "parallel": f"Each line is a trial: its settings, and what it reached in {metric}. Orange: "
        "the best; blue: the best fifth of the finished ones. The worst quarter ends at the edge "
        f"of the last axis; n = {n} trials.",
        "importance": "Share of the variance between finished trials that each setting accounts "
        f"for ({_way_of_importance(report)}); of one that not all trials have, between those that "
        "have it.",
        "front": "Finished trials; joined: those that no other one beats.",
    }
    alts = {
        "history": "Objective by trial",
        "parallel": "Settings and objective of each trial",
        "importance": "; ".join(f"{s.label} {s.share:.2f}" for s in report.importance.shares),
        "front": "Objectives of finished trials",
    }
    return [Figure(name, plain(alts[name]), captions[name])]
