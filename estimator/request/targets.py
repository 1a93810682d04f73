"""The text of --targets: what kind of thing it says. What letters mean is resolved against a model's modules."""

from __future__ import annotations

from typing import NamedTuple

from estimator.errors import UsageError


class Targets(NamedTuple):
    """What the text of --targets says."""

    kind: str  # "default" | "all-linear" | "regex" | "names"; letters are names until the modules are known
    value: str | tuple[str, ...] | None


def parse_targets(text: str) -> Targets:
    """Raises UsageError for a text that names nothing."""
    said = text.strip()
    if said == "default":
        return Targets("default", None)
    if said.lower() == "all-linear":
        return Targets("all-linear", "all-linear")
    if said.startswith("re:") and len(said) > 3:
        return Targets("regex", said[3:])
    names = tuple(dict.fromkeys(name.strip() for name in said.split(",") if name.strip()))
    if not names or said.startswith("re:"):
        raise UsageError(
            f"{text[:60]!r} names no modules.",
            where="--targets",
            way_out="write qkvo, q_proj,v_proj, all-linear, default or re:...",
        )
    return Targets("names", names)
