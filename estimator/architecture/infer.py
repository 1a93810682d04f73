"""Modules of an architecture without facts, from the checkpoint's names and shapes alone.

What a name means (an Embedding, a router that is no Linear, a transposed convolution) is what it means in most of
transformers' model families, from the facts' `$names`; shapes decide where the name says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from estimator.architecture.facts import line
from estimator.architecture.guess_names import run_time_parameters
from estimator.architecture.guess_ties import add_tied
from estimator.architecture.load import Loaded
from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.architecture.rename import natural_key
from estimator.checkpoint.checkpoint import Checkpoint
from estimator.notes import Note

_BUFFERS = re.compile(
    r"(running_mean|running_var|num_batches_tracked|position_ids|inv_freq|masked_bias|e_score_correction_bias"
    r"|final_logits_bias|relative_position_index|attn_mask|mean|std|freqs|cos|sin)"
)
_EMBEDDING = re.compile(r"(embed|emb$|wte$|wpe$|shared$|word_embeddings|position_embed|lookup)")
_TRANSPOSED = re.compile(r"(transpos|deconv|upsampl|up_conv|conv_transpose|conv_t\d)")
_BY_DIMENSIONS = {2: "Linear", 3: "Conv1d", 4: "Conv2d", 5: "Conv3d"}


def infer(config: Mapping[str, Any], checkpoint: Checkpoint) -> ModuleTree:
    """The module tree as names and shapes suggest it; `basis` is "inferred", and a note says what was assumed."""
    parameters = run_time_parameters(config, checkpoint.tensors)
    modules, tied, embedding, head = add_tied(config, list(_modules(parameters)))
    architecture = config.get("architectures")
    named = architecture[0] if isinstance(architecture, list) and architecture else None
    return ModuleTree(
        architecture=named,
        config=config,
        modules=tuple(modules),
        tied=tied,
        input_embedding=embedding,
        output_embedding=head,
        declares_ties=bool(tied),
        tie_word_embeddings=bool(tied) or bool(config.get("tie_word_embeddings")),
        is_composite=any(isinstance(value, Mapping) and "model_type" in value for value in config.values()),
        basis="inferred",
        notes=(_note(named, tied, config),),
    )


def below_open(name: str, branch: Mapping[str, Any]) -> list[Module]:
    """The modules of a part that another package builds, from what the checkpoint holds for it."""
    found: dict[str, Loaded] = {}
    waiting = [("", branch)]
    while waiting:
        prefix, below = waiting.pop(0)
        for part, value in below.items():
            if isinstance(value, Loaded):
                found[f"{prefix}{part}"] = value
            else:
                waiting.append((f"{prefix}{part}.", value))
    ordered = dict(sorted(found.items(), key=lambda item: natural_key(item[0])))
    return [module._replace(name=f"{name}.{module.name}".rstrip(".")) for module in _modules(ordered)]


def _note(named: Any, tied: Mapping[str, str], config: Mapping[str, Any]) -> Note:
    what = named or config.get("model_type") or "this architecture"
    ties = f"; {', '.join(tied)} is taken as tied" if tied else ""
    message = (
        f"{what} is not among the known architectures: which modules are Linear, Embedding or convolutions was "
        f"inferred from names and shapes{ties}. Compare with --verify --device meta before relying on it."
    )
    return Note("inferred", message)


def _modules(parameters: Mapping[str, Loaded]) -> Iterator[Module]:
    """Owners of tensors and the containers above them, in the order of the names."""
    owners: dict[str, dict[str, Loaded]] = {"": {}}
    for name, loaded in parameters.items():
        owner, _, leaf = name.rpartition(".")
        parts = owner.split(".") if owner else []
        for depth in range(len(parts)):
            owners.setdefault(".".join(parts[: depth + 1]), {})
        owners[owner][leaf] = loaded
    names = line("$names") or {}
    for name, own in _depth_first(owners):
        yield _module(name, own, names, owners)


def _depth_first(owners: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    below: dict[str, list[str]] = {}
    for name in owners:
        if name:
            below.setdefault(name.rpartition(".")[0], []).append(name)
    waiting = [""]
    while waiting:
        name = waiting.pop()
        yield name, owners[name]
        waiting += sorted(below.get(name, ()), key=_place, reverse=True)


def _place(name: str) -> tuple[int, int | str]:
    part = name.rpartition(".")[2]
    return (0, int(part)) if part.isdigit() else (1, 0)


def _module(name: str, own: Mapping[str, Loaded], names: Mapping[str, Any], owners: Mapping[str, Any]) -> Module:
    tensors = [Parameter(leaf, loaded.shape, loaded.dtype) for leaf, loaded in own.items() if loaded.shape is not None]
    buffers = tuple(tensor for tensor in tensors if _BUFFERS.fullmatch(tensor.name))
    parameters = sorted((t for t in tensors if t not in buffers), key=lambda t: (t.name == "bias", t.name != "weight"))
    kind = _kind(name, {tensor.name: tensor.shape for tensor in parameters}, names, owners)
    named = _class_of_other(own) if kind == "other" else kind
    return Module(name, named, kind, tuple(parameters), buffers, _groups(name, kind, tuple(parameters)))


def _class_of_other(own: Mapping[str, Loaded]) -> str:
    """A name for printing: norms by what they hold."""
    if "running_mean" in own:
        return "BatchNorm2d"
    if "weight" in own and len(own["weight"].shape or ()) == 1:
        return "LayerNorm" if "bias" in own else "RMSNorm"
    return "Module"


def _kind(name: str, own: Mapping[str, tuple[int, ...]], names: Mapping[str, Any], owners: Mapping[str, Any]) -> str:
    if "in_proj_weight" in own or ("in_proj_bias" in own and "q_proj_weight" in own):
        return "MultiheadAttention"
    weight = own.get("weight")
    if weight is None and (original := owners.get(f"{name}.parametrizations.weight")):
        weight = original["original1"].shape if "original1" in original else None
    if weight is None or set(own) - {"weight", "bias"} or len(weight) not in _BY_DIMENSIONS:
        return "other"
    if len(weight) == 2 and (bias := own.get("bias")) is not None and bias[0] != weight[0] and bias[0] == weight[1]:
        return "Conv1D"
    leaf = name.rpartition(".")[2]
    parent = name.rpartition(".")[0].rpartition(".")[2]
    for key in (f"{parent}.{leaf}:{len(weight)}", f"{leaf}:{len(weight)}"):
        if not leaf.isdigit() and key in names:
            return names[key]
    if _TRANSPOSED.search(name.lower()) and len(weight) > 2:
        return "other"
    if len(weight) == 2 and "bias" not in own and _EMBEDDING.search(leaf.lower()):
        return "Embedding"
    return _BY_DIMENSIONS[len(weight)]


def _groups(name: str, kind: str, parameters: tuple[Parameter, ...]) -> int:
    weight = next((parameter.shape for parameter in parameters if parameter.name == "weight"), None)
    if kind not in ("Conv1d", "Conv2d", "Conv3d") or weight is None:
        return 1
    first = re.search(
        r"(conv_in|conv_?[01]|layers\.0|conv_0\.conv|conv_layers\.0\.conv)$", name
    )  # of a signal's one channel
    return weight[0] if weight[1] == 1 and weight[0] > 1 and not first else 1
