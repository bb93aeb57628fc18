"""`gcpctl report`: what a study or sweep came to, as a folder to read, print and publish from."""

from collections.abc import Mapping
from pathlib import Path

import click

from orchestrator.cli.options import complete_jobs
from orchestrator.cli.output import answer, talk
from orchestrator.cli.session import connect
from orchestrator.jobs.errors import ConflictError
from orchestrator.jobs.job import STUDY, Job
from orchestrator.jobs.store import JobStore

_TUNE = "tune"


@click.command()
@click.argument("study", shell_complete=complete_jobs)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write into; files of an earlier report are replaced.  [default: STUDY-report]",
)
@click.option("--open", "open_", is_flag=True, help="Open the page in the browser.")
@click.option(
    "--metric",
    default="",
    help="What to compare a study's cells by, as in `gcpctl compare`.  [default: the study's]",
)
def report(study: str, folder: Path | None, open_: bool, metric: str) -> None:
    """Write the report of a study or a sweep, also while it runs.

    It is a folder with one page (report.html, and report.md), figures as SVG and PDF, and all
    numbers as CSV, JSON and LaTeX. STUDY is the id of a study or sweep, or a part of it that begins
    or ends it. When it ends, MLflow has a report of it as well; this one is made of what MLflow
    holds now.

    \b
      gcpctl report ablation-pooling-k7x2 --open
      gcpctl report k7x2 --metric ece -o calibration
    """
    session = connect()
    job = session.store.find(study)
    files = _files(session.store, job, metric)
    from orchestrator.results.report import PAGE, write_folder

    target = folder or Path(f"{job.job_id}-report")
    try:
        write_folder(files, target)
    except OSError as exc:
        raise ConflictError(
            f"cannot write to {target}: {exc.strerror}", "choose another folder with -o"
        ) from exc
    page = (target / PAGE).resolve()
    if not job.state.is_final:
        talk(f"{job.job_id} has not ended: the report is of what is there so far")
    if open_ and not _open(page):
        talk("no browser could be opened; the page:")
    answer(str(page))


def _files(store: JobStore, job: Job, metric: str) -> Mapping[str, bytes]:
    """Return the report's files."""
    # Imported here: drawing costs a second, and a wrong name should be said at once.
    if job.kind == STUDY:
        from orchestrator.results.report import render_study
        from orchestrator.results.study_report import gather

        return render_study(gather(store, job, metric=metric))
    if job.kind == _TUNE:
        from orchestrator.results.sweep_page import render_sweep
        from orchestrator.results.sweep_report import gather_sweep

        if metric:
            raise click.UsageError("--metric is of studies; a sweep is judged by its objectives")
        return render_sweep(gather_sweep(store, job))
    raise ConflictError(
        f"{job.job_id} is a job of kind {job.kind}; reports are of studies and sweeps",
        f"see its numbers with: gcpctl compare {job.group or job.job_id}",
    )


def _open(page: Path) -> bool:
    import webbrowser

    return webbrowser.open(page.as_uri())
