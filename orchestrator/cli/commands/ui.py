"""`gcpctl ui`: the way into the MLflow UI."""

import html
import os

import click

from cluster.profiles import gcpctl_home
from orchestrator.cli.options import complete_jobs
from orchestrator.cli.output import answer, talk
from orchestrator.cli.session import connect
from orchestrator.results.links import run_page, start_page


@click.command()
@click.argument("job", required=False, shell_complete=complete_jobs)
@click.option("--open", "open_", is_flag=True, help="Open it in the browser.")
def ui(job: str | None, open_: bool) -> None:
    """Print the link into the MLflow UI, or open it.

    The link holds the cluster's token: it logs a browser in, so do not pass it on.
    """
    session = connect()
    if job is not None:
        page = run_page(session.store.find(job))
    else:
        session.store.experiments()  # say now if nobody answers or the token is refused
        page = start_page()
    link = f"{session.profile.mlflow_url}/?token={session.profile.token()}{page}"
    if open_ and _open(link):
        return
    if open_:
        talk("no browser could be opened; the link:")
    answer(link)


def _open(link: str) -> bool:
    """Open a link without showing it to everybody who can list processes."""
    import webbrowser

    page = gcpctl_home() / "cluster" / "open-ui.html"
    page.unlink(missing_ok=True)
    with open(os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f'<meta http-equiv="refresh" content="0; url={html.escape(link)}">')
    return webbrowser.open(page.as_uri())
