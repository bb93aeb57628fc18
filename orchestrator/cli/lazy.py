"""A click group whose commands are imported when they are used, not before."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

import click


@dataclass(frozen=True)
class Entry:
    """A command by its place: `package.module:attribute`, and the first line of its help."""

    target: str
    help: str


class LazyGroup(click.Group):
    """Knows its commands by name and one line each; loads the one that is called."""

    def __init__(self, *, entries: Mapping[str, Entry], **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.entries = entries
        # click reads the names here when it looks for what a misspelt one may have meant.
        self.commands = dict.fromkeys(entries)  # type: ignore[assignment]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.entries.items()])
