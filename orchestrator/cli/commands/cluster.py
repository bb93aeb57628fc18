"""`gcpctl cluster`: the cluster on this machine."""

import click

from cluster import local
from orchestrator.cli.options import output_option
from orchestrator.cli.output import answer, answer_json, duration, table, talk
from orchestrator.jobs.errors import EXIT_UNREACHABLE


@click.group(no_args_is_help=True)
def cluster() -> None:
    """Bring the cluster on this machine up or down."""


@cluster.command()
@click.option("--cpus", type=click.IntRange(1), help="CPU cores for jobs; all of them by default.")
@click.option("--ui-port", type=click.IntRange(1, 65535), help="Port of the MLflow UI.")
def up(cpus: int | None, ui_port: int | None) -> None:
    """Start what is not running: Ray, MLflow, the controller. Repairs a broken cluster.

    All of it listens on this machine only and asks for a token. `submit` does this by itself.
    """
    profile = local.up(num_cpus=cpus, ui_port=ui_port, say=talk)
    talk(f"the cluster is up; MLflow at {profile.mlflow_url} (log in with: gcpctl ui)")


@cluster.command()
def down() -> None:
    """Stop the cluster. Queued jobs wait, running ones resume at the next `up`."""
    report = local.down(say=talk)
    talk(
        f"stopped {report.processes} processes ({', '.join(report.services)})"
        if report.was_running
        else "the cluster was not running"
    )


@cluster.command("status")
@output_option
@click.pass_context
def status_(ctx: click.Context, output: str) -> None:
    """Show the services, their ports and what they cost in memory; exit code 3 when not up."""
    found = local.status()
    if output == "json":
        answer_json(found.to_json())
    elif not found.services:
        talk(f"no cluster was brought up in {found.home} yet; start one with: gcpctl cluster up")
    else:
        rows = [
            (
                service.name,
                service.state,
                str(service.pid or "-"),
                "-" if service.uptime_s is None else duration(service.uptime_s),
                f"{service.pss_mib:.0f} MiB",
                str(service.restarts),
                service.url or "-",
            )
            for service in found.services
        ]
        answer(table(("SERVICE", "STATE", "PID", "UP", "MEMORY", "RESTARTS", "URL"), rows))
    if not found.running:
        ctx.exit(EXIT_UNREACHABLE)
