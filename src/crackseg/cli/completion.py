"""`crackseg completion`: let the shell complete commands and options."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that makes SHELL complete crackseg's commands, options and choices.

    \b
    crackseg completion bash >> ~/.bashrc
    crackseg completion zsh >> ~/.zshrc
    crackseg completion fish > ~/.config/fish/completions/crackseg.fish
    """
    from click.shell_completion import get_completion_class

    completer = get_completion_class(shell)
    assert completer is not None  # one of click's own
    click.echo(completer(context.find_root().command, {}, "crackseg", "_CRACKSEG_COMPLETE").source())
