"""`lora-size models`: what is known without a network."""

from __future__ import annotations

import fnmatch

import click

from estimator.cli.options import models
from estimator.source.snapshot import Known, known_models


@click.command("models", short_help="List the models that are known without a network.")
@click.argument("pattern", default="", shell_complete=models)
@click.option("--json", "json_", is_flag=True, help="A list of objects.")
def command(pattern: str, json_: bool) -> int:
    """List the models that are known without a network; PATTERN is a part of the name, or has * and ?.

    Behind each id stand its aliases: both are taken as --model.

    \b
      lora-size models qwen2.5
      lora-size models '*-7b' --json
    """
    from estimator.errors import NotFoundError
    from estimator.report.as_json import as_json
    from estimator.source.find import closest_names

    wanted = pattern.lower() if any(letter in pattern for letter in "*?[") else f"*{pattern.lower()}*"
    found = [
        known
        for known in known_models()
        if any(fnmatch.fnmatchcase(name.lower(), wanted) for name in (known.id, *known.aliases))
    ]
    if not found:
        close = [f"`lora-size models {word}`" for word in _closest_words(pattern)] or closest_names(pattern)
        way_out = f"did you mean {' or '.join(close)}?" if close else "`lora-size models` lists all of them"
        raise NotFoundError(f"no bundled model matches {pattern!r}.", where="PATTERN", way_out=way_out)
    if json_:
        print(as_json([_as_object(known) for known in found]))
        return 0
    width = max(len(known.id) for known in found)
    for known in found:
        print(f"{known.id:<{width}}  {', '.join(known.aliases)}".rstrip())
    return 0


def _closest_words(pattern: str) -> list[str]:
    """What stands in ids and is spelled almost like the pattern: a family such as qwen."""
    import re
    from difflib import get_close_matches

    words = {word for known in known_models() for word in re.findall("[a-z]{3,}", known.id.lower())}
    return get_close_matches(pattern.lower(), sorted(words), n=1, cutoff=0.75)


def _as_object(known: Known) -> dict[str, object]:
    import json

    config = json.loads(known.config_text)
    return {"id": known.id, "aliases": list(known.aliases), "architecture": (config.get("architectures") or [None])[0]}
