"""The section of config.json that a module is built from, by the names on its path."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Read = Callable[[str], Any]  # a config field's value, the class's default included; None where there is none

_ALSO = {"visual": "vision", "image": "vision", "language": "text"}
_TEXTS = ("text_config", "llm_config", "language_config", "thinker_config.text_config")


def section_of_module(module: str, read: Read) -> Read:
    """Reads the fields of the innermost section: `audio_tower.asr_encoder` is built from audio_config.asr_config.

    Where no name on the path leads out of the text model, its section counts.
    """
    inside = ""
    for part in module.split("."):
        found = next((name for name in _names(part) if isinstance(read(inside + name), Mapping)), None)
        inside += f"{found}." if found else ""
    text = next((name for name in _TEXTS if isinstance(read(inside + name), Mapping)), None)
    inside += f"{text}." if text else ""
    return (lambda field: read(inside + field)) if inside else read


def _names(part: str) -> Iterator[str]:
    """What the section may be called that a module of this name is built from: `asr_encoder`, asr_config."""
    if part.isdigit():
        return
    words = part.split("_")
    for stem in (part, "_".join(words[:-1]), *words, *(_ALSO[word] for word in words if word in _ALSO)):
        if stem:
            yield f"{stem}_config"
    yield part


def first_number(config: Read, *fields: str) -> int | None:
    """The first of the fields that is a whole number."""
    values = (config(field) for field in fields)
    return next((value for value in values if type(value) is int), None)
