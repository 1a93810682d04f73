"""`lora-size completion`: the script that makes a shell complete options and models."""

from __future__ import annotations

import click


@click.command("completion", short_help="The script that makes a shell complete options and models.")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def command(shell: str) -> int:
    """Print a completion script: add `eval "$(lora-size completion bash)"` to your shell's start-up file."""
    from click.shell_completion import get_completion_class

    from estimator.cli.group import cli

    completer = get_completion_class(shell)
    assert completer is not None  # click ships all three
    print(completer(cli, {}, "lora-size", "_LORA_SIZE_COMPLETE").source())
    return 0
