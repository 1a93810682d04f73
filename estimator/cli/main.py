"""The command `lora-size`. Only here are errors printed and exit codes set.

What it is made of is imported inside `main`, so that Ctrl-C is heard while that takes its time.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from estimator.errors import LoraSizeError, UnsupportedError, unforeseen

if TYPE_CHECKING:
    import click

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with the contract's code; never a traceback for what users or files bring."""
    try:
        code = _run(arguments)
    except KeyboardInterrupt as error:
        _tell(["stopped." if error.__cause__ else "\nstopped."])  # click has ended the line already
        os._exit(130)  # at once: a thread may be in the middle of an import, where the interpreter can't end
    sys.exit(code)


def _run(arguments: list[str] | None) -> int:
    gc.disable()  # one answer a process: of what is imported and read nothing is garbage before the end
    import click

    from estimator.cli.group import PipeClosed, cli

    _open_closed()
    _say_what_is_waited_for()
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
    except click.Abort as error:
        raise KeyboardInterrupt from error
    except PipeClosed:
        # The reader is gone: nothing more can be said, and the interpreter must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        code = _say(_unwritten(error) if error.errno in _NO_ROOM else unforeseen(error))
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a full disk would be full at exit as well
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # Ctrl-C while a class was made
            raise error.__cause__ from None
        code = _say(unforeseen(error))
    finally:
        gc.freeze()  # what is left is not looked through once more at the end, which takes a tenth of the time
    return code


def _open_closed() -> None:
    """Standard streams that were closed lead nowhere: Python has None for them, and prints errors with the answer."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def _say_what_is_waited_for() -> None:
    """On a line of stderr that is written over, only where somebody is looking; --quiet puts an end to it."""
    from estimator.source.progress import listen

    def say(text: str) -> None:
        print("\r\033[K" + text, end="", file=sys.stderr, flush=True)

    listen(say if sys.stderr.isatty() else None)


def _unwritten(error: OSError) -> LoraSizeError:
    what = f"the answer can't be written: {(error.strerror or 'no room').lower()}."
    return UnsupportedError(what, where="standard output", way_out="make room there, or write it elsewhere")


def _program() -> str:
    name = os.path.basename(sys.argv[0])
    return "hf lora-size" if name == "hf-lora-size" else "lora-size"


def _say(error: LoraSizeError) -> int:
    from estimator.source.plain import plain

    lines = [
        f"Error: {plain(error.what, 600)}",
        f"  where  {plain(error.where)}",
        "  try    " + "\n         ".join(plain(line, 600) for line in error.way_out.splitlines()),
    ]
    _tell([*lines, f"  code   {error.code}"])
    return error.exit_code


def _say_usage(error: click.ClickException) -> int:
    import click

    from estimator.source.plain import plain

    ctx = getattr(error, "ctx", None)
    param = getattr(error, "param", None)
    where = (
        param.human_readable_name if isinstance(param, click.Argument) else max(getattr(param, "opts", [""]), key=len)
    )
    what, way_out = " ".join(error.format_message().split()), f"{ctx.command_path if ctx else 'lora-size'} --help"
    if isinstance(error, click.NoSuchOption) and ctx:
        from estimator.cli.hints import way_out as hinted

        if hint := hinted(error.option_name, ctx):
            what, way_out = f"there is no option {error.option_name}.", hint
    elif isinstance(error, click.BadParameter):
        from estimator.cli.hints import of_a_list

        way_out = of_a_list(error) or way_out
    lines = [f"Error: {plain(what, 600)}"]
    lines += [f"  where  {where}"] if where else []
    lines += [f"  try    {plain(way_out, 600)}", "  code   usage"]
    _tell(lines)
    return 2


def _tell(lines: list[str]) -> None:
    with suppress(OSError):  # where nobody can be told, the exit code still counts
        print("\n".join(lines), file=sys.stderr, flush=True)
