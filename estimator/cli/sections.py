"""A command whose --help shows its options under headings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

Sections = Mapping[str, Sequence[Any]]  # heading -> decorators of click.option


def option_name(decorator: Any) -> str:
    """The parameter's name that a click.option decorator declares."""

    def probe() -> None: ...

    return decorator(probe).__click_params__[-1].name


def write_options(command: click.Command, sections: Sections, ctx: click.Context, formatter: Any) -> None:
    """The options of the command under their headings; those in none of them come last."""
    left = {param.name: record for param in command.get_params(ctx) if (record := param.get_help_record(ctx))}
    for heading, options in sections.items():
        records = [left.pop(name) for name in map(option_name, options) if name in left]
        if records:
            with formatter.section(heading):
                formatter.write_dl(records)
    with formatter.section("Options"):
        formatter.write_dl(list(left.values()))


class SectionedCommand(click.Command):
    def __init__(self, *args: Any, sections: Sections | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections or {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_extra_args = True  # only to say what they were to be
        rest = super().parse_args(ctx, args)
        if ctx.args and not ctx.resilient_parsing:  # completion is asked while the line is being written
            stray = ctx.args[0]
            raise click.UsageError(f"{stray!r} belongs to no option; a model is given as --model {stray}", ctx)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_options(self, self.sections, ctx, formatter)
