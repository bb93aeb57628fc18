"""`gcpctl compare`: trainings side by side."""

import dataclasses
import shutil
import textwrap
from collections import Counter

import click

from orchestrator.cli.options import complete_jobs
from orchestrator.cli.output import (
    answer,
    answer_json,
    is_terminal,
    table,
    talk,
    wants_colour,
)
from orchestrator.cli.session import connect
from orchestrator.jobs.states import ACTIVE
from orchestrator.results.collect import select
from orchestrator.results.compare import compare as put_side_by_side
from orchestrator.results.comparison import Comparison
from orchestrator.results.exports import to_csv, to_csv_of_cells, to_json
from orchestrator.results.latex import to_latex
from orchestrator.results.links import compare_page
from orchestrator.results.ordering import in_order
from orchestrator.results.status import one_line
from orchestrator.results.tables import for_terminal, missing, notes, to_markdown

_WIDTH = 100
_MANY = 20
_SOME = 3
_MOST_IN_MLFLOW = 12
_COLOURS = {"better": "green", "worse": "red"}


@click.command()
@click.argument("names", nargs=-1, required=True, shell_complete=complete_jobs)
@click.option(
    "--metric",
    help="What to compare by: top1, top5, loss, ece of the evaluation, or any metric in MLflow "
    "such as val/top1 or time/train_s.  [default: the study's, else top1]",
)
@click.option(
    "--baseline", default="", help="The cell, or a job in it, to compare the others with."
)
@click.option("--sort", help="Order by a column (top1, macs, time ...), delta, p or cell.")
@click.option("--all-keys", is_flag=True, help="Show every key of the config that differs.")
@click.option("--cells", is_flag=True, help="With -o csv: a row for each cell, not each training.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "csv", "md", "latex"]),
    default="table",
    show_default=True,
    help="How to write the answer.",
)
def compare(
    names: tuple[str, ...],
    metric: str | None,
    baseline: str,
    sort: str | None,
    all_keys: bool,
    cells: bool,
    output: str,
) -> None:
    """Compare trainings: means over seeds, differences, what they cost.

    Each of NAMES is a job, a study, a sweep, one of its trials (SWEEP-t007), or KEY=VALUE for all
    trainings with a tag: study=NAME, recipe=NAME, user=NAME. Trainings that differ in their seeds
    alone are one cell. Differences are taken seed by seed; with fewer than three seeds nothing is
    called better or worse.

    \b
      gcpctl compare k7x2 m3p9
      gcpctl compare ablation-pooling-k7x2 --sort macs
      gcpctl compare recipe=digits_resnet_gap recipe=digits_resnet_isqrt -o latex
    """
    if cells and output != "csv":
        raise click.UsageError("--cells goes with -o csv")
    session = connect()
    chosen = select(session.store, names)
    comparison = put_side_by_side(
        chosen.trainings, metric or chosen.metric, baseline, title=chosen.title, all_keys=all_keys
    )
    if sort is not None:
        comparison = dataclasses.replace(comparison, cells=in_order(comparison, sort))
    if output == "json":
        answer_json(to_json(comparison))
    elif output == "table":
        _show(comparison, all_keys=all_keys)
        _link(comparison, session.profile.mlflow_url)
    else:
        write = {"csv": to_csv_of_cells if cells else to_csv, "md": to_markdown, "latex": to_latex}
        answer(write[output](comparison).rstrip("\n"))
        if output == "csv":
            for text in comparison.warnings:
                talk(f"note: {text}")


def _show(comparison: Comparison, *, all_keys: bool) -> None:
    answer(comparison.title)
    width = shutil.get_terminal_size().columns if is_terminal() else _WIDTH
    for block in for_terminal(comparison, width=width, all_keys=all_keys):
        rows = [[_coloured(text) for text in row] for row in block.rows]
        answer("\n" + table(block.header, rows))
    answer()
    lines = [*notes(comparison), *(f"note: {text}" for text in comparison.warnings)]
    lines += _absent(comparison)
    for line in lines:
        wrapped = textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False)
        answer("\n".join(wrapped))


def _absent(comparison: Comparison) -> list[str]:
    """Return who does not count: how many are still to come, and the others by cell and reason."""
    jobs: dict[tuple[str, str], list[str]] = {}
    to_come: Counter[str] = Counter()
    for name, job, why in missing(comparison):
        state = why.partition(":")[0]
        if state in ACTIVE:
            to_come[state] += 1
        else:
            jobs.setdefault((name, one_line(why)), []).append(job)
    lines = []
    if to_come:
        counts = ", ".join(f"{count} {state}" for state, count in to_come.items())
        lines.append(f"not counted yet: {counts}")
    for (name, why), some in jobs.items():
        more = f" and {len(some) - _SOME} more" if len(some) > _SOME else ""
        lines.append(f"not counted: {', '.join(some[:_SOME])}{more} of {name}, {why}")
    if len(lines) > _MANY:
        lines[_MANY:] = [f"not counted: {len(lines) - _MANY} more cells or reasons; see -o csv"]
    return lines


def _link(comparison: Comparison, mlflow_url: str) -> None:
    """Point to the same runs in MLflow, unless they are more than its page can show."""
    shown = [t for cell in comparison.cells for t in cell.trainings if t.job_id not in cell.missing]
    if 1 < len(shown) <= _MOST_IN_MLFLOW:
        runs = [training.run_id for training in shown]
        experiments = list(dict.fromkeys(training.experiment_id for training in shown))
        talk(f"in MLflow: {mlflow_url}/{compare_page(runs, experiments)}")


def _coloured(text: str) -> str:
    """Return a verdict in its colour where colour is welcome."""
    colour = _COLOURS.get(text.strip())
    return click.style(text, fg=colour) if colour and wants_colour() else text
