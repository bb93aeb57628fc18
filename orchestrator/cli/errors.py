"""The one place where errors become text and exit codes."""

import contextlib
import os
import sys
from typing import NoReturn

import click

EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def run_and_exit(command: click.Command, argv: list[str]) -> NoReturn:
    """Run a click command and end the process with the documented exit code."""
    try:
        code = command.main(args=argv, prog_name="gcpctl", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except click.ClickException as exc:
        exc.show()
        sys.exit(EXIT_USAGE)
    except (KeyboardInterrupt, click.Abort):
        click.echo("\ninterrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader (`head`, `less`) has gone; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as exc:
        sys.exit(_explain(exc, debug="--debug" in argv or bool(os.environ.get("GCPCTL_DEBUG"))))


def _explain(exc: Exception, *, debug: bool) -> int:
    """Say what went wrong and return the exit code."""
    if debug:
        import traceback

        traceback.print_exc()
    # Errors made for people carry `exit_code`; those of other packages are told by their fields.
    if hasattr(exc, "exit_code") and hasattr(exc, "message"):
        _say(exc.message, getattr(exc, "hint", ""))
        return int(exc.exit_code)
    if hasattr(exc, "problems"):  # workloads.config.errors.ConfigError
        _say(str(exc), "")
        return EXIT_USAGE
    if hasattr(exc, "message") and hasattr(exc, "hint"):  # workloads.data.errors.DataError
        _say(str(exc.message), str(exc.hint))
        return EXIT_USAGE
    _say(
        f"internal error: {type(exc).__name__}: {exc}",
        "" if debug else "run it again with `gcpctl --debug ...` to see where",
    )
    return EXIT_INTERNAL


def _say(message: str, hint: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        click.echo(click.style("Error: ", fg="red", bold=True) + message, err=True)
        if hint:
            click.echo(f"  {hint}", err=True)
