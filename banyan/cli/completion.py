"""`banyan completion`: what makes the Tab key know the commands and their options."""

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print what the shell has to read so that the Tab key completes banyan.

    \b
    Example:
      banyan completion bash > ~/.local/share/bash-completion/completions/banyan
    """
    from banyan.cli.main import COMPLETION_VARIABLE, banyan

    found = get_completion_class(shell)
    if found is not None:
        click.echo(found(banyan, {}, "banyan", COMPLETION_VARIABLE).source())
