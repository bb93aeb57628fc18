"""Options that several commands share, and what completes their arguments."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])


class WorkersType(click.ParamType["int | tuple[int, int]"]):
    """`4`, or `2:8` for the fewest and the most."""

    name = "N | MIN:MAX"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | tuple[int, int]:
        """Return the number, or both."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # a default, or converted before
        numbers = [int(n) if n.isascii() and n.isdigit() else 0 for n in value.split(":")]
        if not all(numbers) or len(numbers) > 2:
            self.fail(f"{value!r} is not in the range from 1, nor MIN:MAX as in 2:8", param, ctx)
        if len(numbers) == 1:
            return numbers[0]
        least, most = numbers
        if least > most:
            self.fail(f"{value!r}: the first is the fewest, so {most}:{least}", param, ctx)
        return least, most


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


def checkpoint_option(also: str) -> Callable[[_F], _F]:
    """Add `-c CHECKPOINT`, of a job or `also` something else."""
    return click.option(
        "-c",
        "--checkpoint",
        required=True,
        metavar="CHECKPOINT",
        shell_complete=complete_checkpoints,
        help=f"JOB, JOB:best, JOB:last, JOB:STEP, {also}.",
    )


def network_option(command: _F) -> _F:
    """Add `--network NAME`."""
    return click.option(
        "--network",
        metavar="NAME",
        shell_complete=complete_networks,
        help="The network of `gcpctl model list` that a file must be.",
    )(command)


def complete_jobs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids of the newest jobs that begin so; nothing while the cluster is down."""
    from orchestrator.cli.session import connect

    try:
        jobs = connect().store.search(limit=50)
    except Exception:  # completion must never speak
        return []
    return [job.job_id for job in jobs if job.job_id.startswith(incomplete)]


def complete_checkpoints(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the jobs that begin so, and after a colon which checkpoint; files complete too."""
    name, colon, which = incomplete.partition(":")
    if colon:
        return [f"{name}:{word}" for word in ("best", "last") if word.startswith(which)]
    return complete_jobs(ctx, param, incomplete)


def complete_networks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the named networks that begin so."""
    from workloads.config.zoo import load_zoo

    return [name for name in load_zoo() if name.startswith(incomplete)]


def complete_recipes(
    ctx: click.Context, param: click.Parameter, incomplete: str, *, kind: str | None = None
) -> list[str]:
    """Return the recipes that begin so; of one kind, or of all."""
    from orchestrator.jobs.recipes import recipe_files

    return [name for name in recipe_files(kind) if name.startswith(incomplete)]
