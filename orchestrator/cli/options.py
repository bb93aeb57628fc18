"""Options that several commands share, and what completes their arguments."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])


def output_option(command: _F) -> _F:
    """Add `-o table|json`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="How to write the answer.",
    )(command)


def complete_jobs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids of the newest jobs that begin so; nothing while the cluster is down."""
    from orchestrator.cli.session import connect

    try:
        jobs = connect().store.search(limit=50)
    except Exception:  # completion must never speak
        return []
    return [job.job_id for job in jobs if job.job_id.startswith(incomplete)]


def complete_recipes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the recipes that begin so."""
    from orchestrator.jobs.recipes import recipe_files

    return [name for name in recipe_files() if name.startswith(incomplete)]
