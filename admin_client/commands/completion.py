"""`taskq completion`."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what SHELL needs to complete this command.

    \b
    bash  eval "$(taskq completion bash)"                            in ~/.bashrc
    zsh   eval "$(taskq completion zsh)"                             in ~/.zshrc
    fish  taskq completion fish > ~/.config/fish/completions/taskq.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(click.get_current_context().find_root().command, {}, "taskq", "_TASKQ_COMPLETE").source())
