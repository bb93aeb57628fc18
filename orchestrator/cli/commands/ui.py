"""`gcpctl ui`: the way into the MLflow UI."""

import html
import os

import click

from cluster.profiles import gcpctl_home
from orchestrator.cli.options import complete_jobs
from orchestrator.cli.output import answer, talk
from orchestrator.cli.session import Session, connect
from orchestrator.jobs.errors import EXIT_USAGE, GcpctlError
from orchestrator.jobs.job import Job
from orchestrator.results.links import run_page, start_page

_GROUPS = ("ablation", "tune")


@click.command()
@click.argument("job", required=False, shell_complete=complete_jobs)
@click.option("--open", "open_", is_flag=True, help="Open it in the browser.")
@click.option(
    "--view",
    metavar="VIEW",
    help="Of a study or sweep: params, convergence, baseline or table; of another job: table, with "
    "all jobs of its experiment.",
)
@click.option("--forget", is_flag=True, help="Take the views of a study or sweep out of MLflow.")
def ui(job: str | None, open_: bool, view: str | None, forget: bool) -> None:
    """Print the link into the MLflow UI, or open it.

    Of a study or sweep, or a job of one, also the links of its views. They are brought up to date
    first, and stand under `Views` in the UI as well.

    The links hold the cluster's token: they log a browser in, so do not pass them on.
    """
    session = connect()
    found = session.store.find(job) if job is not None else None
    if forget:
        _forget(session, found)
        return
    if found is None:
        if view is not None:
            raise _usage("--view needs the study whose view it is", "gcpctl ui STUDY --view VIEW")
        session.store.experiments()  # say now if nobody answers or the token is refused
        links = [("", _address(session, start_page()))]
    else:
        has_views = view is not None or found.kind in _GROUPS or found.group
        views = _views(session, found) if has_views else []
        links = [("run", _address(session, run_page(found))), *views]
    if view is not None:
        links = [_pick(links, view)]
    if open_ and _open(links[0][1]):
        return
    if open_:
        talk("no browser could be opened; the link:")
    width = max(len(word) for word, _ in links)
    for word, link in links:
        answer(link if len(links) == 1 else f"{word:<{width}}  {link}")


def _views(session: Session, job: Job) -> list[tuple[str, str]]:
    """Return the views of the study that a job is or belongs to, else of its experiment."""
    from orchestrator.results.views import put_views

    views = put_views(session.store, job)
    return [(view.word, _address(session, view.page)) for view in views]


def _address(session: Session, page: str) -> str:
    return f"{session.profile.mlflow_url}/?token={session.profile.token()}{page}"


def _pick(links: list[tuple[str, str]], view: str) -> tuple[str, str]:
    for word, link in links[1:]:
        if word == view:
            return word, link
    words = ", ".join(word for word, _ in links[1:])
    raise _usage(f"there is no view {view!r}", f"there are: {words}")


def _forget(session: Session, job: Job | None) -> None:
    from orchestrator.results.views import forget_views

    if job is None or job.kind not in _GROUPS:
        raise _usage("--forget needs a study or sweep", "gcpctl ui STUDY --forget")
    count = forget_views(session.store, job)
    talk(f"{count} views of {job.job_id} taken out of MLflow; its runs and report stay")


def _usage(message: str, hint: str) -> GcpctlError:
    return GcpctlError(message, hint, exit_code=EXIT_USAGE)


def _open(link: str) -> bool:
    """Open a link without showing it to everybody who can list processes."""
    import webbrowser

    page = gcpctl_home() / "cluster" / "open-ui.html"
    page.unlink(missing_ok=True)
    with open(os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f'<meta http-equiv="refresh" content="0; url={html.escape(link)}">')
    return webbrowser.open(page.as_uri())
