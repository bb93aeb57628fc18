"""`gcpctl completion`: scripts for the shells that click knows."""

import click
from click.shell_completion import get_completion_class

from orchestrator.cli.output import answer


@click.command(no_args_is_help=True)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell completion script.

    \b
      gcpctl completion bash >> ~/.bashrc
      gcpctl completion zsh >> ~/.zshrc
      gcpctl completion fish > ~/.config/fish/completions/gcpctl.fish
    """
    from orchestrator.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    answer(kind(cli, {}, "gcpctl", "_GCPCTL_COMPLETE").source())
