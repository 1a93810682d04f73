"""Names of a real model, and what a config may make of them: suffixes, lists, expressions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Names:
    """What a drawing chooses from: names of the real model."""

    by_kind: Mapping[str, tuple[str, ...]]  # "Linear", "Embedding", "other", ...: full names of modules
    parameters: tuple[tuple[str, int], ...]  # full name, dimensions
    ends: tuple[str, ...]  # the input embedding, the output embedding, and what shares their weights
    rows: int | None  # of the input embedding

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(name for names in self.by_kind.values() for name in names)


def names_of(model: Any) -> Names:
    """The names of a real model."""
    import torch
    from transformers.pytorch_utils import Conv1D

    kinds = {
        "Linear": (torch.nn.Linear, Conv1D), "Embedding": (torch.nn.Embedding,),
        "Conv": (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d), "Attention": (torch.nn.MultiheadAttention,),
    }  # fmt: skip
    by_kind: dict[str, list[str]] = {**{kind: [] for kind in kinds}, "other": []}
    for name, module in model.named_modules():
        if name:
            kind = next((kind for kind, classes in kinds.items() if isinstance(module, classes)), "other")
            by_kind[kind].append(name)
    ends = [_asked(model, which) for which in ("get_input_embeddings", "get_output_embeddings")]
    weights = {id(end.weight) for end in ends if hasattr(end, "weight")}
    return Names(
        by_kind={kind: tuple(found) for kind, found in by_kind.items()},
        parameters=tuple((name, p.dim()) for name, p in model.named_parameters()),
        ends=tuple(name for name, m in model.named_modules() if name and id(getattr(m, "weight", None)) in weights),
        rows=ends[0].weight.shape[0] if isinstance(ends[0], torch.nn.Embedding) else None,
    )


def _asked(model: Any, method: str) -> Any:
    try:
        return getattr(model, method)()
    except (NotImplementedError, AttributeError):
        return None


_MOSTLY_LINEAR = ("Linear",) * 22 + ("Embedding", "Embedding", "Conv", "other")


def a_name(random: Random, names: Names, kinds: tuple[str, ...] = _MOSTLY_LINEAR) -> str:
    """A full name of a random kind."""
    return random.choice(names.by_kind[random.choice(kinds)] or names.modules)


def suffix(random: Random, name: str) -> str:
    """The name's last part, or more of it, or all."""
    parts = name.split(".")
    count = random.choice((1, 1, 1, 1, 1, 2, 2, 3, len(parts)))
    return ".".join(parts[-min(count, len(parts)) :])


def several(random: Random, names: Names, most: int = 4, **kinds: Any) -> list[str]:
    """Suffixes of some names."""
    return list(dict.fromkeys(suffix(random, a_name(random, names, **kinds)) for _ in range(random.randint(1, most))))


def some_ends(random: Random, names: Names) -> list[str]:
    """Suffixes of one or two of the embeddings and of what is tied to them."""
    ends = names.ends or (a_name(random, names, ("Embedding",)),)
    return list(dict.fromkeys(suffix(random, random.choice(ends)) for _ in range(random.choice((1, 1, 2)))))


def expression(random: Random, names: Names) -> str:
    """A regular expression over one or two names."""
    name = a_name(random, names)
    last = name.rpartition(".")[2]
    other = a_name(random, names).rpartition(".")[2]
    return random.choice(
        (
            rf".*\.{re.escape(last)}",
            rf".*({last}|{other})",
            rf".*\.[01]\..*{last}",
            rf"(?!.*{other}).*{last}",
            re.sub(r"\d+", r"\\d+", name.replace(".", r"\.")),
            name,
            last,
            rf"(?i).*\.{last.upper()}$",
            rf".*{last[: len(last) // 2 + 1]}.*",
        )
    )


def part_of(random: Random, names: Names) -> str:
    """Any part of any name, seldom a piece of a word."""
    part = random.choice(a_name(random, names, kinds=("Linear", "Embedding", "other")).split("."))
    return part if random.random() < 0.85 else part[random.randint(0, max(len(part) - 3, 0)) :]
