"""The root of the command line: a table of commands, and one place for errors."""

import sys

import click

from orchestrator.cli.errors import run_and_exit
from orchestrator.cli.lazy import Entry, LazyGroup

_COMMANDS = "orchestrator.cli.commands"

COMMANDS = {
    "submit": Entry(
        f"{_COMMANDS}.submit:submit", "Submit a job; it runs on without this terminal."
    ),
    "tune": Entry(f"{_COMMANDS}.tune:tune", "Search for the settings that train RECIPE best."),
    "status": Entry(f"{_COMMANDS}.status:status", "Show jobs, or one job in full."),
    "watch": Entry(
        f"{_COMMANDS}.watch:watch", "Show how a study, a sweep or a job gets on, until it ends."
    ),
    "logs": Entry(f"{_COMMANDS}.logs:logs", "Print a job's log, or follow it until the job ends."),
    "stop": Entry(f"{_COMMANDS}.stop:stop", "Stop jobs; a running one saves a checkpoint first."),
    "retry": Entry(f"{_COMMANDS}.retry:retry", "Queue failed or stopped jobs again, to resume."),
    "compare": Entry(
        f"{_COMMANDS}.compare:compare",
        "Compare trainings: means over seeds, differences, what they cost.",
    ),
    "report": Entry(
        f"{_COMMANDS}.report:report",
        "Write the report of a study or a sweep, also while it runs.",
    ),
    "predict": Entry(
        f"{_COMMANDS}.predict:predict",
        "Name the likeliest classes of images, on this machine and without the cluster.",
    ),
    "recipes": Entry(f"{_COMMANDS}.recipes:recipes", "List, show, plot and check recipes."),
    "data": Entry(
        f"{_COMMANDS}.data:data", "Check folders of images, and pack them for fast reading."
    ),
    "model": Entry(
        f"{_COMMANDS}.model:model", "List and show networks; convert and export trained ones."
    ),
    "cluster": Entry(
        f"{_COMMANDS}.cluster:cluster", "Bring the cluster on this machine up or down."
    ),
    "ui": Entry(f"{_COMMANDS}.ui:ui", "Print the link into the MLflow UI, or open it."),
    "doctor": Entry(f"{_COMMANDS}.doctor:doctor", "Check everything and say what to mend."),
    "completion": Entry(f"{_COMMANDS}.completion:completion", "Print a shell completion script."),
    "version": Entry(f"{_COMMANDS}.version:version", "Show the versions of gcpctl and its stack."),
}

_HELP = """Train, evaluate, ablate, tune and understand Global Covariance Pooling networks.

\b
  gcpctl submit train digits_resnet_isqrt --follow    a first job, on this machine
  gcpctl status                                       what runs, what waits and why
  gcpctl logs JOB -f                                  what a job says
  gcpctl submit eval -c JOB --follow                  judge what it has trained
  gcpctl ui                                           compare runs in MLflow
"""

_EPILOG = """\b
Exit codes: 0 done, 1 internal error, 2 wrong usage or config, 3 cluster unreachable, 4 token
refused, 5 not found, 6 conflict, 7 more than the cluster can hold, 8 data that cannot be trained
on, 10 job failed, 11 job stopped, 130 interrupted.
"""


cli = LazyGroup(
    entries=COMMANDS,
    name="gcpctl",
    help=_HELP,
    epilog=_EPILOG,
    params=[
        click.Option(
            ["--debug"], is_flag=True, envvar="GCPCTL_DEBUG", help="Show tracebacks of errors."
        )
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    callback=lambda debug: None,
)


def main() -> None:
    """Run the command line; never returns."""
    run_and_exit(cli, sys.argv[1:])


if __name__ == "__main__":
    main()
