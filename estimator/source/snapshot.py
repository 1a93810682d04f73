"""The bundled models: their config.json fields, answered without a network.

models.tsv is generated (`python -m estimator.source.generate`): a stamp, then one model a line, sorted by id:

    id <tab> aliases, comma between <tab> names that the class ties and the file does not <tab> config, as JSON
"""

import json
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from estimator.notes import Note
from estimator.source.found import Found

PATH = os.path.join(os.path.dirname(__file__), "models.tsv")


class Known(NamedTuple):
    """A bundled model: a line of models.tsv."""

    id: str
    aliases: tuple[str, ...]
    untied: tuple[str, ...]
    config_text: str


def known_models() -> Iterator[Known]:
    """Every bundled model, sorted by id."""
    for line in _text().split("\n")[1:]:
        if line:
            yield _parse(line)


@lru_cache(maxsize=8)  # whether a network is needed is asked before the model is
def find_in_snapshot(name: str) -> Found | None:
    """The bundled model of that id or alias, letters' case aside; None where there is none."""
    known = _look_up(name)
    if known is None:
        return None
    note = Note(
        "bundled_snapshot", f"{known.id} was answered from the bundled snapshot; --online asks the Hub instead."
    )
    return Found(
        id=known.id,
        revision=None,
        source="snapshot",
        config=json.loads(known.config_text),
        untied=known.untied,
        notes=(note,),
    )


def _text() -> str:
    with open(PATH, encoding="utf-8") as file:
        return file.read()


def _parse(line: str) -> Known:
    id_, aliases, untied, config = line.split("\t")
    return Known(id_, tuple(filter(None, aliases.split(","))), tuple(filter(None, untied.split(","))), config)


def _look_up(name: str) -> Known | None:
    """Found by searching the text, so that 629 other lines are not parsed."""
    wanted = name.lower()
    if not wanted or any(letter in wanted for letter in "\t\n,"):
        return None
    text = _text()
    lowered = text.lower()
    for opening in ("\n", "\t", ","):
        at = lowered.find(opening + wanted)
        while at >= 0:
            after = lowered[at + 1 + len(wanted)]
            start = text.rfind("\n", 0, at + 1) + 1
            known = _parse(text[start : text.find("\n", at + 1)]) if after in "\t," and start else None
            if known and wanted in (known.id.lower(), *(alias.lower() for alias in known.aliases)):
                return known
            at = lowered.find(opening + wanted, at + 1)
    return None
