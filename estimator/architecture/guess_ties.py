"""What the file of an unknown architecture leaves out because it shares weights with what the file holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from estimator.architecture.guess_embeddings import Embeddings
from estimator.architecture.module import Module, Parameter

# Classes whose head is a language model's, so that it is there even where the file has nothing for it.
_GENERATES = re.compile(
    r".*(ForCausalLM|LMHead|LMHeadModel|WithLMHead|ForConditionalGeneration|ForMaskedLM|ForPreTraining|LM)"
)
_SPEECH = re.compile(r"(.*\.)?encoder\.(conv1|conv_?\d|subsampling.*)")  # what a speech encoder begins with
_HYBRID = ("layers_block_type", "layer_types")


class Shared(NamedTuple):
    modules: list[Module]
    tied: dict[str, str]  # full parameter name -> the one that it shares
    embedding: str | None  # get_input_embeddings()
    head: str | None  # get_output_embeddings()


def with_shared(config: Mapping[str, Any], stored: Sequence[Module]) -> Shared:
    """The modules with those that only share weights added, and who shares with whom."""
    modules, tied = _with_shared_layers(config, list(stored))
    names = Embeddings(modules)
    embedding = names.input()
    if embedding is None or not _ties(config):
        biases, more = _with_biases(modules)
        return Shared(biases, tied | more, embedding, names.output(embedding))
    modules, more = _with_stacks(modules, names, embedding)
    tied |= more
    head = names.output(embedding)
    if head is None:
        modules, more = _with_heads(config, modules, names, _tied_source(names, embedding))
        tied |= more
    modules, more = _with_biases(modules)
    return Shared(modules, tied | more, embedding, Embeddings(modules).output(embedding))


def _ties(config: Mapping[str, Any]) -> bool:
    """Heads are tied unless config.json says no, here or for the text model."""
    if "tie_word_embeddings" in config:
        return bool(config["tie_word_embeddings"])
    text = config.get("text_config")
    return bool(text.get("tie_word_embeddings", True)) if isinstance(text, Mapping) else True


def _tied_source(names: Embeddings, embedding: str) -> str:
    """The embedding that the head shares: the decoder's where encoder and decoder have one each."""
    decoders = re.sub(r"(^|\.)encoder\.", r"\1decoder.", embedding)
    return decoders if decoders in names.modules else embedding


# --- heads ---


def _with_heads(
    config: Mapping[str, Any], modules: list[Module], names: Embeddings, source: str
) -> tuple[list[Module], dict[str, str]]:
    """Heads that have no weight in the file: where a bias of theirs is stored, else where the class has one by name."""
    embedding = names.modules[source]
    if embedding.kind != "Embedding":
        return modules, {}
    found = list(_heads_of_biases(modules, names, embedding))
    architecture = config.get("architectures")
    named = str(architecture[0]) if isinstance(architecture, list) and architecture else ""
    if not found and _GENERATES.fullmatch(named):
        found = [(_head_name(modules, source), source, ())]
    tied = {}
    for name, origin, bias in found:
        shared = names.modules[origin].parameters[0]
        head = Module(name, "Linear", "Linear", (Parameter("weight", shared.shape, shared.dtype), *bias))
        modules = _placed(modules, head)
        tied[f"{name}.weight"] = f"{origin}.weight"
        if bias and name.endswith(".decoder"):
            tied[f"{name}.bias"] = f"{name.removesuffix('.decoder')}.bias"
    return modules, tied


def _heads_of_biases(
    modules: list[Module], names: Embeddings, embedding: Module
) -> Iterator[tuple[str, str, tuple[Parameter, ...]]]:
    """(head, the embedding that it shares, its bias): BERT's `cls.predictions` has the bias above its `decoder`,
    XLNet's `lm_loss` is the head itself."""
    tables = [embedding, *(m for m in modules if m.kind == "Embedding" and "position" not in m.name)]
    for module in modules:
        bias = module.parameters
        if len(bias) != 1 or bias[0].name != "bias" or not re.search(r"(head|predictions|loss)$", module.name):
            continue
        table = next(
            (table for table in tables if table.parameters[:1] and table.parameters[0].shape[0] == bias[0].shape[0]),
            None,
        )
        if table is None:
            continue
        inner = "decoder" not in names.children.get(module.name, ()) and names.children.get(module.name)
        yield f"{module.name}.decoder" if inner else module.name, table.name, bias


def _head_name(modules: list[Module], source: str) -> str:
    """`lm_head`, beside the model that holds the embedding; `proj_out` in what turns speech to text."""
    if ".decoder." in source and any(_SPEECH.fullmatch(module.name) for module in modules):
        return "proj_out"
    inner = re.match(r"(language_model|text_model)\.model\.", source)
    return f"{inner[1]}.lm_head" if inner else "lm_head"


def _placed(modules: list[Module], new: Module) -> list[Module]:
    """With a module added: in place of one of its name, below its parent, or at the end."""
    same = next((at for at, module in enumerate(modules) if module.name == new.name), None)
    if same is not None:
        return [*modules[:same], new, *modules[same + 1 :]]
    parent = f"{new.name.rpartition('.')[0]}."
    last = max((at for at, m in enumerate(modules) if m.name.startswith(parent)), default=len(modules) - 1)
    last = len(modules) - 1 if parent == "." else last
    return [*modules[: last + 1], new, *modules[last + 1 :]]


def _with_biases(modules: list[Module]) -> tuple[list[Module], dict[str, str]]:
    """A head whose `decoder` has the bias in the file has it itself too, as one parameter with two names."""
    owners = {module.name: at for at, module in enumerate(modules)}
    changed, tied = list(modules), {}
    for module in modules:
        owner, _, leaf = module.name.rpartition(".")
        bias = next((p for p in module.parameters if p.name == "bias"), None)
        if leaf != "decoder" or bias is None or owner not in owners:
            continue
        above = changed[owners[owner]]
        if not re.search(r"(lm_head|m[lim]m_\w*head|predictions)$", owner):
            continue
        if not any(p.name == "bias" for p in above.parameters):
            changed[owners[owner]] = above._replace(parameters=(*above.parameters, bias))
            tied[f"{owner}.bias"] = f"{module.name}.bias"
        else:
            tied[f"{module.name}.bias"] = f"{owner}.bias"
    return changed, tied


# --- embeddings and layers ---


def _with_stacks(modules: list[Module], names: Embeddings, embedding: str) -> tuple[list[Module], dict[str, str]]:
    """Encoder and decoder beside an embedding that both use each have it under a name of their own."""
    before, _, leaf = embedding.rpartition(".")
    own = {"shared": "embed_tokens", "word_embeddings": "word_embeddings"}.get(leaf)
    tied, added = {}, list(modules)
    weight = names.modules[embedding].parameters[:1]
    for part in ("encoder", "decoder") if own and weight else ():
        stack = f"{before}.{part}".lstrip(".")
        name = f"{stack}.{own}"
        if stack in names.modules and name not in names.modules:
            at = next(index for index, m in enumerate(added) if m.name == stack)
            added.insert(at + 1, Module(name, "Embedding", "Embedding", weight))
            tied[f"{name}.weight"] = f"{embedding}.weight"
    return added, tied


def _with_shared_layers(config: Mapping[str, Any], modules: list[Module]) -> tuple[list[Module], dict[str, str]]:
    """Hybrid layers that share a block whose name says so: where the file holds it for some, the others have it too.

    Which layers are alike, a list in config.json says; the stored blocks are used in turn (Zamba).
    """
    kinds = next((config[field] for field in _HYBRID if isinstance(config.get(field), list)), [])
    held: dict[str, dict[int, list[Module]]] = {}
    for module in modules:
        match = re.match(r"(.*\blayers)\.(\d+)\.(shared_trans\w*)(\.|$)", module.name) if kinds else None
        if match and int(match[2]) < len(kinds):
            held.setdefault(f"{match[1]}.#.{match[3]}", {}).setdefault(int(match[2]), []).append(module)
    tied: dict[str, str] = {}
    for pattern, by_layer in held.items():
        stored = sorted(by_layer)
        alike = [at for at, kind in enumerate(kinds) if kind == kinds[stored[0]]]
        for turn, layer in enumerate(alike):
            origin = stored[turn % len(stored)]
            if layer not in by_layer:
                old, new = pattern.replace("#", str(origin)), pattern.replace("#", str(layer))
                copies = [module._replace(name=new + module.name[len(old) :]) for module in by_layer[origin]]
                modules = _inserted(modules, copies, new.rpartition(".")[0])
                tied |= {
                    f"{m.name}.{p.name}": f"{old}{m.name[len(new) :]}.{p.name}" for m in copies for p in m.parameters
                }
    return modules, tied


def _inserted(modules: list[Module], new: list[Module], parent: str) -> list[Module]:
    at = next((at for at, module in enumerate(modules) if module.name == parent), len(modules) - 1)
    return [*modules[: at + 1], *new, *modules[at + 1 :]]
