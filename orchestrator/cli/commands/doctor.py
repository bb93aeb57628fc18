"""`gcpctl doctor`: check everything, say what to mend."""

import click

from orchestrator.cli.options import output_option
from orchestrator.cli.output import answer, answer_json, wants_colour
from orchestrator.results.doctor import examine

_MARKS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "bad": ("bad", "red")}


@click.command()
@output_option
@click.pass_context
def doctor(ctx: click.Context, output: str) -> None:
    """Check everything and say what to mend.

    The exit code is 1 when something is bad; a warning is not.
    """
    findings = examine()
    if output == "json":
        answer_json([finding.to_json() for finding in findings])
    else:
        for finding in findings:
            text, colour = _MARKS[finding.verdict]
            mark = click.style(f"{text:<4}", fg=colour) if wants_colour() else f"{text:<4}"
            answer(f"{mark}  {finding.subject}: {finding.message}")
            if finding.remedy:
                answer(f"      {finding.remedy}")
    if any(finding.verdict == "bad" for finding in findings):
        ctx.exit(1)
