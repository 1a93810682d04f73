"""The group `lora-size`, whose default is an estimate; each command is imported when it is called."""

from __future__ import annotations

import gc
import sys
from typing import Any

import click

from estimator.cli.options import estimate_options
from estimator.request.request import flag

# name -> module that holds a click command `command`; imported when it is called.
COMMANDS = {
    "batch": "estimator.cli.batch",
    "check": "estimator.cli.check",
    "completion": "estimator.cli.completion",
    "models": "estimator.cli.models",
    "plan": "estimator.cli.plan",
    "sweep": "estimator.cli.sweep",
}


class PipeClosed(Exception):
    """The reader of the output is gone; no OSError, of which click would make a failure."""


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise PipeClosed from error
        return result

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from estimator.cli.options import SECTIONS
        from estimator.cli.sections import write_options

        write_options(self, SECTIONS, ctx, formatter)
        self.format_commands(ctx, formatter)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        from importlib import import_module

        return import_module(COMMANDS[name]).command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else self._no_command(ctx, *args)
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def _no_command(self, ctx: click.Context, word: str, *behind: str) -> str:
        if any(f"--{word}" in option.opts for option in self.get_params(ctx)):
            return f"it is an option: --{word}"
        named = ctx.params.get("model") or any(one.startswith("--model") or one == "-m" for one in behind)
        return "an estimate needs none" if named else f"an estimate needs none, and a model is given as --model {word}"


@click.group(
    cls=_Group,
    invoke_without_command=True,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@estimate_options
@click.version_option(package_name="lora-size", prog_name="lora-size")
@click.pass_context
def cli(ctx: click.Context, **options: Any) -> None:
    """Exact sizes of LoRA adapters, before a weight is downloaded.

    From config.json and safetensors headers alone: how many parameters PEFT would train, how large the adapter file
    would be, and the base model at each precision. The exit code is 0 when done, 1 where the base's files contradict
    each other or --verify finds a difference, 2 where the request or the data is wrong, 3 where the metadata could not
    be had.

    \b
      lora-size --model llama-3.1-8b --r 32 --targets qkvo
      lora-size --model ./my-model --targets all-linear --dora --explain
      lora-size --model gpt2 --config adapter_config.json --json
      lora-size plan --model llama-3.1-8b --base-precision nf4 --gpu rtx4090
    """
    if ctx.invoked_subcommand is not None:
        given = [name for name in options if ctx.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE]
        if given:
            option = flag(given[0])
            raise click.UsageError(
                f"{option} belongs behind the command: lora-size {ctx.invoked_subcommand} {option} ..."
            )
        gc.enable()  # main() saves an estimate from it; a command gives many answers
        return
    _ask_ahead(options)
    from estimator.cli.estimate import run

    sys.exit(run(options))


def _ask_ahead(options: dict[str, Any]) -> None:
    """Begin to read a model of the Hub, so that the network is waited for while the rooms are imported."""
    if options["model"] and not options.get("adapter"):
        from estimator.cli.options import request_fields
        from estimator.request.request import Request
        from estimator.source.ahead import start

        asked = Request(**request_fields(options))
        names = ("revision", "subfolder", "token", "offline", "online", "timeout")
        start(asked.model, **{name: getattr(asked, name) for name in names})
