"""A command whose --help shows its options under headings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click


def option_name(decorator: Any) -> str:
    """The parameter's name that a click.option decorator declares."""

    def probe() -> None: ...

    return decorator(probe).__click_params__[-1].name


class SectionedCommand(click.Command):
    """`sections`: heading -> decorators of click.option; options in none of them come last."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[Any]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = {heading: list(map(option_name, options)) for heading, options in (sections or {}).items()}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        left = {param.name: record for param in self.get_params(ctx) if (record := param.get_help_record(ctx))}
        for heading, names in self.sections.items():
            records = [left.pop(name) for name in names if name in left]
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
        with formatter.section("Options"):
            formatter.write_dl(list(left.values()))
