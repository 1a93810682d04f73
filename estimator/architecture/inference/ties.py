"""What the file of an unknown architecture leaves out because it shares weights with what the file holds."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from estimator.architecture.inference.embeddings import Embeddings
from estimator.architecture.inference.heads import Added, with_biases, with_heads
from estimator.architecture.module import Module, full_name

_KINDS_OF_LAYERS = ("layers_block_type", "layer_types")
_SHARED_BLOCK = re.compile(r"(.*\blayers)\.(\d+)\.(shared_trans\w*)(\.|$)")
_STACKS = ("encoder", "decoder", "text_encoder", "text_decoder")
_OWN_NAMES = {"shared": "embed_tokens", "word_embeddings": "word_embeddings"}  # in encoder and decoder


class Shared(NamedTuple):
    """Modules of an unknown architecture once what it shares is there as well."""

    modules: list[Module]
    tied: dict[str, str]  # full parameter name -> the one that it shares
    embedding: str | None  # get_input_embeddings()
    head: str | None  # get_output_embeddings()


def with_shared(config: Mapping[str, Any], stored: Sequence[Module]) -> Shared:
    """The modules with those that only share weights added, and who shares with whom."""
    modules, tied = _with_shared_layers(config, list(stored))
    names = Embeddings(modules)
    embedding = names.input()
    if embedding is not None and _ties(config):
        modules, stacks = _with_stacks(modules, names, embedding)
        modules, heads = with_heads(config, modules, names, _tied_source(names, embedding))
        tied |= stacks | heads
    modules, biases = with_biases(modules)
    return Shared(modules, tied | biases, embedding, Embeddings(modules).output(embedding))


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


def _with_stacks(modules: list[Module], names: Embeddings, embedding: str) -> Added:
    """Encoder and decoder beside an embedding that both use each have it under a name of their own."""
    before, _, leaf = embedding.rpartition(".")
    own = _OWN_NAMES.get(leaf)
    tied, added = {}, list(modules)
    weight = names.modules[embedding].parameters[:1]
    for part in _STACKS if own and weight else ():
        stack = full_name(before, part)
        name = f"{stack}.{own}"
        if stack in names.modules and name not in names.modules:
            added = _inserted(added, [Module(name, "Embedding", "Embedding", weight)], stack)
            tied[f"{name}.weight"] = f"{embedding}.weight"
    return added, tied


def _with_shared_layers(config: Mapping[str, Any], modules: list[Module]) -> Added:
    """Hybrid layers share a block whose name says so: where the file holds it for some, the others have it too.

    Which layers are alike, a list in config.json says; the stored blocks are used in turn (Zamba).
    """
    lists = (config[field] for field in _KINDS_OF_LAYERS if isinstance(config.get(field), list))
    kinds: Sequence[Any] = next(lists, ())
    held: dict[str, dict[int, list[Module]]] = {}
    for module in modules if kinds else ():
        match = _SHARED_BLOCK.match(module.name)
        if match and int(match[2]) < len(kinds):
            held.setdefault(f"{match[1]}.#.{match[3]}", {}).setdefault(int(match[2]), []).append(module)
    tied: dict[str, str] = {}
    for pattern, by_layer in held.items():
        stored = sorted(by_layer)
        alike = [at for at, kind in enumerate(kinds) if kind == kinds[stored[0]]]
        for turn, layer in enumerate(alike):
            if layer in by_layer:
                continue
            origin = stored[turn % len(stored)]
            old, new = pattern.replace("#", str(origin)), pattern.replace("#", str(layer))
            copies = [module._replace(name=new + module.name[len(old) :]) for module in by_layer[origin]]
            modules = _inserted(modules, copies, new.rpartition(".")[0])
            tied |= {f"{m.name}.{p.name}": f"{old}{m.name[len(new) :]}.{p.name}" for m in copies for p in m.parameters}
    return modules, tied


def _inserted(modules: list[Module], new: list[Module], parent: str) -> list[Module]:
    """Behind their parent."""
    at = next((at for at, module in enumerate(modules) if module.name == parent), len(modules) - 1)
    return [*modules[: at + 1], *new, *modules[at + 1 :]]
