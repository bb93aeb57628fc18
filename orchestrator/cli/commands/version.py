"""`gcpctl version`: what is installed."""

import importlib.metadata
import platform

import click

from orchestrator.cli.options import output_option
from orchestrator.cli.output import answer, answer_json

PACKAGES = ("gcpctl", "ray", "mlflow", "torch", "torchvision", "click", "pydantic")


@click.command()
@output_option
def version(output: str) -> None:
    """Show the versions of gcpctl and its stack."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    if output == "json":
        answer_json(found)
        return
    for name in ("gcpctl", "python", *PACKAGES[1:]):
        answer(f"{name:<12} {found[name]}")
