"""Writes docs/cli.md from the help pages: `make docs`. A test holds the file to them."""

from collections.abc import Iterator
from pathlib import Path

import click

from orchestrator.cli.main import cli

TARGET = Path(__file__).resolve().parents[2] / "docs" / "cli.md"

_HEAD = """# Commands

Written by `make docs` from the help pages; do not edit.

Every command that lists takes `-o json`; the answer is on stdout, all talk on stderr. `NO_COLOR`
is respected, and there is neither colour nor redrawing where stdout is no terminal.

"""


def render() -> str:
    """Return the whole page."""
    parts = [_HEAD]
    for path, command in commands(cli, ("gcpctl",)):
        context = click.Context(command, info_name=" ".join(path), max_content_width=88)
        parts.append(f"## {' '.join(path)}\n\n```\n{command.get_help(context)}\n```\n\n")
    return "".join(parts).rstrip() + "\n"


def commands(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with its path, parents first."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from commands(child, (*path, name))


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
