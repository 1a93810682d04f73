"""The command `lora-size`: a group whose default is an estimate. Only here are errors printed and exit codes set."""

from __future__ import annotations

import errno
import gc
import os
import sys
from contextlib import suppress
from typing import Any

import click

from estimator.cli.options import estimate_options
from estimator.errors import LoraSizeError, UnsupportedError, unforeseen

# name -> module that holds a click command `command`; imported when it is called.
COMMANDS = {
    "batch": "estimator.cli.batch",
    "check": "estimator.cli.check",
    "completion": "estimator.cli.completion",
    "models": "estimator.cli.models",
    "plan": "estimator.cli.plan",
    "sweep": "estimator.cli.sweep",
}


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _PipeClosed(Exception):
    """The reader of the output is gone; no OSError, of which click would make a failure."""


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise _PipeClosed from error
        return result

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
            hint = f"did you mean {close[0]!r}?" if close else f"a model is given as --model {args[0]}"
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)


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
    would be, and the base model at each precision.

    \b
      lora-size --model llama-3.1-8b --r 32 --targets qkvo
      lora-size --model ./my-model --targets all-linear --dora --explain
      lora-size --model gpt2 --config adapter_config.json --json
    """
    if ctx.invoked_subcommand is not None:
        given = [name for name in options if ctx.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE]
        if given:
            option = "--" + given[0].replace("_", "-")
            raise click.UsageError(
                f"{option} belongs behind the command: lora-size {ctx.invoked_subcommand} {option} ..."
            )
        return
    gc.disable()  # one answer a process: tensors come by the ten thousand, and none of them is garbage before the end
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


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with the contract's code; never a traceback for what users or files bring."""
    _open_closed()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a sign shows another, and no traceback
    try:
        result = cli.main(args=arguments, prog_name=_program(), standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except LoraSizeError as error:
        code = _say(error)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        code = 0
    except click.ClickException as error:
        code = _say_usage(error)
    except (click.Abort, KeyboardInterrupt):
        print("\nstopped.", file=sys.stderr)
        code = 130
    except _PipeClosed:
        # The reader is gone: nothing more can be said, and the interpreter must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        code = _say(_unwritten(error) if error.errno in _NO_ROOM else unforeseen(error))
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a full disk would be full at exit as well
    except Exception as error:
        code = _say(unforeseen(error))
    finally:
        gc.freeze()  # what is left is not looked through once more at the end, which takes a tenth of the time
    sys.exit(code)


def _open_closed() -> None:
    """Standard streams that were closed lead nowhere: Python has None for them, and prints errors with the answer."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def _unwritten(error: OSError) -> LoraSizeError:
    what = f"the answer can't be written: {(error.strerror or 'no room').lower()}."
    return UnsupportedError(what, where="standard output", way_out="make room there, or write it elsewhere")


def _program() -> str:
    name = os.path.basename(sys.argv[0])
    return "hf lora-size" if name == "hf-lora-size" else "lora-size"


def _say(error: LoraSizeError) -> int:
    from estimator.report.units import printable

    lines = [
        f"Error: {printable(error.what, 600)}",
        f"  where  {printable(error.where)}",
        f"  try    {printable(error.way_out, 600)}",
    ]
    _tell([*lines, f"  code   {error.code}"])
    return error.exit_code


def _say_usage(error: click.ClickException) -> int:
    from estimator.report.units import printable

    ctx = getattr(error, "ctx", None)
    where = getattr(getattr(error, "param", None), "opts", None)
    lines = [f"Error: {printable(error.format_message(), 600)}"]
    lines += [f"  where  {where[0]}"] if where else []
    lines += [f"  try    {ctx.command_path if ctx else 'lora-size'} --help", "  code   usage"]
    _tell(lines)
    return 2


def _tell(lines: list[str]) -> None:
    with suppress(OSError):  # where nobody can be told, the exit code still counts
        print("\n".join(lines), file=sys.stderr)
