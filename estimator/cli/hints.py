"""The way out where an option is not there: another's name for it, another command's, or a field of LoraConfig."""

from __future__ import annotations

import re
from difflib import get_close_matches

import click

from estimator.request.other_names import OTHER_NAMES
from estimator.request.request import flag

_NO_SIZE = ("lora_alpha", "use_rslora")  # dropout has one: its masks are part of the activations
_LOCAL = ("check", "models")
_OF_THE_NETWORK = ("offline", "online", "token", "timeout")
_INTO_A_FILE = ("output", "out", "o", "output_file")


def way_out(written: str, ctx: click.Context) -> str | None:
    """For an option as it was written, `--lora_r`; None where only its neighbours can be named."""
    from estimator.request.options import LORA_FIELDS

    theirs = written.lstrip("-").replace("-", "_").lower()
    ours, value = OTHER_NAMES.get(theirs, (theirs, None))
    shown = flag(ours) + (f" {value}" if value else "")
    if flag(ours) in _options(ctx.command, ctx):
        return shown
    if ours in _OF_THE_NETWORK and ctx.command.name in _LOCAL:
        return f"leave it out: {ctx.command.name} never asks the network"
    if flag(ours) in _options(ctx.find_root().command, ctx):
        return f"lora-size {shown}"
    from estimator.cli.plan import command as plan

    if flag(ours) in _options(plan, ctx):
        return f"lora-size plan {shown}"
    field = next((name for name in (theirs, f"lora_{theirs}", f"use_{theirs}") if name in LORA_FIELDS), None)
    if field in _NO_SIZE:
        return "leave it out: no size depends on it"
    if field is not None:
        return f"it has no option: give it as {field} in an adapter_config.json, with --config"
    if theirs in _INTO_A_FILE:
        return "write the answer into a file with > FILE"
    close = get_close_matches(written, sorted(_options(ctx.command, ctx)), n=1, cutoff=0.75)
    return f"did you mean {close[0]}?" if close else None


def of_a_list(error: click.BadParameter) -> str | None:
    """For several values where one is taken, `--r 4,8`: a sweep takes them; None for any other value."""
    several = re.search(r"'([^' ]+(?:,[^' ]+)+)' is not", error.message)
    name = error.param.name if error.param is not None else None
    return f"lora-size sweep {flag(name)} {several[1]}" if several and name in ("r", "base_precision") else None


def _options(command: click.Command, ctx: click.Context) -> set[str]:
    return {name for param in command.get_params(ctx) for name in (*param.opts, *param.secondary_opts)}
