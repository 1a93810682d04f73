"""Heads of language models that an unknown architecture ties to its embedding, so that files have no weight of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from estimator.architecture.inference.embeddings import Embeddings
from estimator.architecture.module import Module, Parameter

# Classes whose head is there even where the file has nothing for it.
_GENERATES = re.compile(
    r".*(ForCausal\w+|LMHead(Model)?|ForConditionalGeneration|ForMaskedLM|For\w+To(Text|Speech)|LM)"
)
_SPEECH = re.compile(r"(.*\.)?encoder\.(conv_?\d|subsampling.*)")  # what a speech encoder begins with
_IN_A_LIST = re.compile(r"(^|\.)\d+\.")
_HEAD = re.compile(r"(.*\.)?\w*(head|predictions|loss|decoder)")
_WITH_BIAS_ABOVE = re.compile(r"(.*\.)?(lm_head|m[lim]m_\w*head|predictions)")

Added = tuple[list[Module], dict[str, str]]  # the modules, and what is tied: full parameter name -> the other's


class _Head(NamedTuple):
    name: str
    embedding: str
    bias: tuple[Parameter, ...] = ()


def with_heads(config: Mapping[str, Any], modules: list[Module], names: Embeddings, source: str) -> Added:
    """Heads added where a bias of theirs is stored without a weight, or else where the class has one by its name.

    `source`: the embedding that the head shares.
    """
    if names.modules[source].kind != "Embedding":
        return modules, {}
    found = list(_heads_of_biases(modules, names, source))
    open_to_one = names.output(source) is None and not _has_one_by_another_name(modules, names.modules[source])
    if not found and open_to_one and _GENERATES.fullmatch(_class_name(config)):
        found = [_Head(_head_name(modules, source), source)]
    tied = {}
    for head in found:
        shared = names.modules[head.embedding].parameters[0]
        weight = Parameter("weight", shared.shape, shared.dtype)
        modules = _placed(modules, Module(head.name, "Linear", "Linear", (weight, *head.bias)))
        tied[f"{head.name}.weight"] = f"{head.embedding}.weight"
    return modules, tied


def with_biases(modules: list[Module]) -> Added:
    """BERT's heads have their bias twice, above the `decoder` and in it, as one parameter: where either is stored."""
    owners = {module.name: at for at, module in enumerate(modules)}
    changed, tied = list(modules), {}
    for module in modules:
        owner, _, leaf = module.name.rpartition(".")
        bias = next((p for p in module.parameters if p.name == "bias"), None)
        if leaf != "decoder" or bias is None or not _WITH_BIAS_ABOVE.fullmatch(owner):
            continue
        above = changed[owners[owner]]
        if any(p.name == "bias" for p in above.parameters):
            tied[f"{module.name}.bias"] = f"{owner}.bias"
        else:
            changed[owners[owner]] = above._replace(parameters=(*above.parameters, bias))
            tied[f"{owner}.bias"] = f"{module.name}.bias"
    return changed, tied


def _has_one_by_another_name(modules: list[Module], table: Module) -> bool:
    """Whether a Linear as large as the embedding stands outside the layers, as ChatGLM's and OLMo's heads do."""
    size = table.parameters[0].shape
    return any(m.kind == "Linear" and m.parameters[0].shape == size and not _IN_A_LIST.search(m.name) for m in modules)


def _class_name(config: Mapping[str, Any]) -> str:
    architecture = config.get("architectures")
    return str(architecture[0]) if isinstance(architecture, list) and architecture else ""


def _heads_of_biases(modules: list[Module], names: Embeddings, source: str) -> Iterator[_Head]:
    """BERT's `cls.predictions` has the bias above its `decoder`, XLNet's `lm_loss` is the head itself."""
    tables = {source: names.modules[source]} | {m.name: m for m in modules if m.kind == "Embedding" and m.parameters}
    for module in modules:
        own = module.parameters
        if len(own) != 1 or own[0].name != "bias":
            continue
        rows = own[0].shape[:1]
        table = next((name for name, table in tables.items() if table.parameters[0].shape[:1] == rows), None)
        inside = names.children.get(module.name, ())
        if (table == source or (table and _HEAD.fullmatch(module.name))) and "decoder" not in inside:
            yield _Head(f"{module.name}.decoder" if inside else module.name, table, own)


def _head_name(modules: list[Module], source: str) -> str:
    """`lm_head`, beside the model that holds the embedding; `proj_out` in what turns speech to text."""
    if ".decoder." in source and any(_SPEECH.fullmatch(module.name) for module in modules):
        return "proj_out"
    inner = re.match(r"(language_model|language|llm|text_model)\.model\.", source)
    return f"{inner[1]}.lm_head" if inner else "lm_head"


def _placed(modules: list[Module], new: Module) -> list[Module]:
    """With a module added: in place of one of its name, below its parent, or at the end."""
    same = next((at for at, module in enumerate(modules) if module.name == new.name), None)
    if same is not None:
        return [*modules[:same], new, *modules[same + 1 :]]
    parent = new.name.rpartition(".")[0]
    below = (at for at, m in enumerate(modules) if m.name == parent or m.name.startswith(f"{parent}."))
    last = max(below, default=len(modules) - 1) if parent else len(modules) - 1
    return [*modules[: last + 1], new, *modules[last + 1 :]]
