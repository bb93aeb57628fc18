"""`gcpctl status`: one or two requests, then text."""

import json
import time
from collections.abc import Callable

import click

from orchestrator.cli.options import complete_jobs, output_option
from orchestrator.cli.output import answer, answer_json, is_terminal, state_text, table, talk
from orchestrator.cli.session import Session, connect
from orchestrator.jobs.errors import NotFoundError, UnreachableError
from orchestrator.jobs.job import Job
from orchestrator.jobs.states import ACTIVE, State
from orchestrator.results.status import HEADER, details, row, search_filter, to_json

_WATCH_INTERVAL_S = 1.0


@click.command()
@click.argument("job", required=False, shell_complete=complete_jobs)
@output_option
@click.option("-w", "--watch", is_flag=True, help="Show again whenever something changes.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in State], case_sensitive=False),
    help="Only jobs in this state; may be given several times.",
)
@click.option("--active", is_flag=True, help="Only jobs that are queued or running.")
@click.option("--tree", is_flag=True, help="Studies and sweeps with their cells and trials.")
@click.option(
    "-a",
    "--all",
    "all_",
    is_flag=True,
    help="Also the jobs of studies, one by one, as --state, --active and --recipe show them.",
)
@click.option(
    "--study", help="Only jobs whose recipe says this `study`, their experiment in MLflow."
)
@click.option("--recipe", help="Only jobs of this recipe.")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 50_000), default=20, show_default=True,
    help="How many of the newest.",
)  # fmt: skip
def status(
    job: str | None,
    output: str,
    watch: bool,
    states: tuple[str, ...],
    active: bool,
    tree: bool,
    all_: bool,
    study: str | None,
    recipe: str | None,
    limit: int,
) -> None:
    """Show jobs, or one job in full.

    JOB is an id, or a part of one that begins or ends it; it is shown with every attempt and all
    lines of why it failed. In the list, TRY is the attempt, and WHY what a job waits for, is doing
    or ended with.

    A study or sweep is one row; --tree shows its cells or trials below it, with a mark for each
    seed: · queued, ▶ running, ✓ finished, ✗ failed, ■ stopped. Of large and of old ones only
    `--tree JOB` shows all.

    \b
      gcpctl status --active
      gcpctl status --tree
      gcpctl status k7x2
      gcpctl status k7x2 -o json
      gcpctl status --watch
    """
    session = connect()
    wanted = tuple(state.value for state in ACTIVE) if active else states

    def look() -> list[Job]:
        if job is not None:
            return [session.store.find(job)]
        everything = all_ or bool(states) or active or recipe is not None
        where = search_filter(wanted, recipe, everything=everything and not tree)
        return _newest(session, where, study, limit)

    if watch:
        _watch(session, look, single=job is not None, output=output, tree=tree)
        return
    _show(session, look(), single=job is not None, output=output, tree=tree)


def _newest(session: Session, where: str, study: str | None, limit: int) -> list[Job]:
    experiments = session.store.experiments()
    ids = [key for key, name in experiments.items() if study in (None, name)]
    if not ids:
        known = ", ".join(sorted(experiments.values()))
        raise NotFoundError(f"there is no study {study!r}", f"known: {known}")
    return session.store.search(where, limit=limit, experiments=ids)


def _text(session: Session, jobs: list[Job], *, single: bool, tree: bool) -> str:
    if tree:
        return _tree(session, jobs, single=single)
    if single:
        pairs = details(jobs[0], session.profile.mlflow_url)
        width = max(len(label) for label, _ in pairs)
        below = "\n" + " " * (width + 2)
        lines = (f"{label:<{width}}  {text}".replace("\n", below) for label, text in pairs)
        return "\n".join(lines)
    rows = [row(job) for job in jobs]
    return table(HEADER, [(r[0], state_text(r[1]), *r[2:]) for r in rows])


def _tree(session: Session, jobs: list[Job], *, single: bool) -> str:
    """Return jobs as rows, each study or sweep with what belongs to it below."""
    from orchestrator.cli.job_tree import JobTree, whole  # only where it is asked for

    lines = table(HEADER, [(r[0], state_text(r[1]), *r[2:]) for r in map(row, jobs)]).split("\n")
    if single:
        return "\n".join([*lines, *whole(session.store, jobs[0])])
    tree = JobTree(session.store, list(session.store.experiments()))
    shown = lines[:1]
    for job, line in zip(jobs, lines[1:], strict=True):
        shown += [line, *tree.below(job)]
    return "\n".join([*shown, *filter(None, [tree.note()])])


def _show(session: Session, jobs: list[Job], *, single: bool, output: str, tree: bool) -> None:
    if output == "json":
        answer_json(to_json(jobs[0]) if single else [to_json(job) for job in jobs])
    elif jobs:
        answer(_text(session, jobs, single=single, tree=tree))
    else:
        talk("no such jobs; submit one with: gcpctl submit train digits_resnet_isqrt --follow")


def _watch(
    session: Session, look: Callable[[], list[Job]], *, single: bool, output: str, tree: bool
) -> None:
    """Redraw on a terminal, append what changed elsewhere; one job's watch ends with it."""
    shown = ""
    complained = False
    while True:
        try:
            jobs = look()
        except UnreachableError as exc:
            if not complained:
                talk(f"{exc.message}; trying again")
            complained = True
            time.sleep(_WATCH_INTERVAL_S)
            continue
        complained = False
        if output == "json":
            values = [to_json(job) for job in jobs]
            text = "\n".join(json.dumps(value) for value in values)
        else:
            text = _text(session, jobs, single=single, tree=tree) if jobs else "no jobs"
        if text != shown:
            if is_terminal() and output != "json":
                click.clear()
            answer(text)
            shown = text
        if single and jobs[0].state.is_final:
            return
        time.sleep(_WATCH_INTERVAL_S)
