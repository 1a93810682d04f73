"""`lora-size check`: the guard before a commit, a merge, a rented GPU."""

from __future__ import annotations

import sys
from typing import Any

import click

from estimator.cli.options import named, one_form


@click.command("check", short_help="Hold adapters and training configs against what they promise.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(), callback=named)
@click.option("--max-file-size", metavar="SIZE", help="Of an adapter file: 50MB, 48MiB or bytes.")
@click.option("--max-parameters", metavar="N", help="Trainable parameters.")
@click.option("--max-percent", metavar="PERCENT", help="Trainable parameters in percent of all.")
@click.option("--strict", is_flag=True, help="Fail where a base is neither bundled, cached nor local.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(("text", "json", "github", "sarif")),
    callback=one_form,
    default="text",
    show_default=True,
    help="github: annotations of a workflow; sarif: for code scanning.",
)
@click.option("--json", "json_", is_flag=True, callback=one_form, help="Short for --format json.")
def command(paths: tuple[str, ...], format_: str, json_: bool, strict: bool, **limits: Any) -> int:
    """Check adapters and training configs at PATHS; silent when all is well. Never asks the network.

    The exit code is 1 where one does not hold, and 3 where PATHS are not there and nothing else is wrong.

    Limits may stand in [tool.lora-size] of pyproject.toml or setup.cfg, or in .lora-size.toml.

    \b
      lora-size check adapters/ configs/ --max-file-size 100MB
      lora-size check . --max-percent 1 --strict --format github
    """
    from estimator.jobs.checking.check import MISSING, check
    from estimator.jobs.checking.limits import configured, to_limits
    from estimator.report.findings import FORMATS
    from estimator.source.plain import plain

    table, where = configured(".")
    to_limits(table, where)
    given = {name: value for name, value in limits.items() if value is not None}
    strict = strict or str(table.get("strict", "")).lower() == "true"
    checked = check(paths, limits=to_limits({**table, **given}), strict=strict)
    if not checked:
        places = ", ".join(plain(path) for path in paths[:3])
        print(f"nothing to check: no adapter and no training config at {places}", file=sys.stderr)
    shown = FORMATS["json" if json_ else format_](checked)
    if shown:
        print(shown)
    failed = [row for row in checked if row.status == "failed"]
    missing = [row for row in failed if row.problems[0].code == MISSING]
    return 0 if not failed else 3 if missing == failed else 1
