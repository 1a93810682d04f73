"""Heads that an unknown architecture ties to its input embedding, and which modules those are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from estimator.architecture.module import Module, Parameter

_INPUT = re.compile(r"(embed_tokens|wte|word_embeddings|shared|tok_embeddings|embed_in|token_embedding|embeddings)")
_HEADED = re.compile(r"(ForCausalLM|LMHead|LMHeadModel|WithLMHead|ForConditionalGeneration|ForMaskedLM|LM)$")
_HEAD = re.compile(r"(.*\.)?(lm_head|embed_out|output_projection|proj_out|lm_head\.decoder|cls\.predictions\.decoder)")


def add_tied(
    config: Mapping[str, Any], modules: list[Module]
) -> tuple[list[Module], dict[str, str], str | None, str | None]:
    """The modules with what the file leaves out because it is tied, the ties, the names of input embedding and head."""
    embedding = _input_embedding(modules)
    head = next((m for m in modules if m.kind == "Linear" and _HEAD.fullmatch(m.name)), None)
    if embedding is None or not _ties(config):
        return modules, {}, embedding.name if embedding else None, head.name if head else None
    weight = embedding.parameters[0]
    modules, tied = _with_stacks(modules, embedding, weight)
    owners = {m.name: m for m in modules}
    if head is None and _HEADED.search(_architecture(config)):
        head = _tied_head(owners, weight)
        modules = _after(modules, head)
        tied[f"{head.name}.weight"] = f"{embedding.name}.weight"
    if head is not None and any(p.name == "bias" for p in head.parameters) and "." in head.name:
        tied[f"{head.name}.bias"] = f"{head.name.rpartition('.')[0]}.bias"
    return modules, tied, embedding.name, head.name if head else None


def _tied_head(owners: Mapping[str, Module], weight: Parameter) -> Module:
    """BERT-like heads keep their bias one level up; others are plain."""
    parent = next((name for name in owners if re.fullmatch(r"(.*\.)?(cls\.predictions|lm_head)", name)), None)
    if parent is None:
        return Module("lm_head", "Linear", "Linear", (Parameter("weight", weight.shape, weight.dtype),))
    bias = tuple(p for p in owners[parent].parameters if p.name == "bias")
    return Module(f"{parent}.decoder", "Linear", "Linear", (Parameter("weight", weight.shape, weight.dtype), *bias))


def _after(modules: list[Module], head: Module) -> list[Module]:
    """The head below its parent, or at the end."""
    parent = f"{head.name.rpartition('.')[0]}."
    last = max((at for at, m in enumerate(modules) if m.name.startswith(parent)), default=len(modules) - 1)
    last = len(modules) - 1 if parent == "." else last
    return [*modules[: last + 1], head, *modules[last + 1 :]]


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""


def _ties(config: Mapping[str, Any]) -> bool:
    """Heads are tied unless config.json says no, here or for the text model."""
    if "tie_word_embeddings" in config:
        return bool(config["tie_word_embeddings"])
    text = config.get("text_config")
    return bool(text.get("tie_word_embeddings", True)) if isinstance(text, Mapping) else True


def _input_embedding(modules: list[Module]) -> Module | None:
    found = [m for m in modules if m.kind == "Embedding" and _INPUT.fullmatch(m.name.rpartition(".")[2])]
    shared = next((m for m in found if m.name.rpartition(".")[2] == "shared"), None)
    return shared or next(iter(found), None)


def _with_stacks(modules: list[Module], embedding: Module, weight: Parameter) -> tuple[list[Module], dict[str, str]]:
    """Encoder and decoder beside a `shared` embedding each have it under a name of their own."""
    before, _, leaf = embedding.name.rpartition(".")
    if leaf != "shared":
        return modules, {}
    tied, added = {}, list(modules)
    names = {m.name for m in modules}
    for part in ("encoder", "decoder"):
        stack = f"{before}.{part}".lstrip(".")
        name = f"{stack}.embed_tokens"
        if stack in names and name not in names:
            at = next(index for index, m in enumerate(added) if m.name == stack)
            added.insert(
                at + 1, Module(name, "Embedding", "Embedding", (Parameter("weight", weight.shape, weight.dtype),))
            )
            tied[f"{name}.weight"] = f"{embedding.name}.weight"
    return added, tied
