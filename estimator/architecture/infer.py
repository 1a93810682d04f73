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
from estimator.checkpoint.checkpoint import Checkpoint
from estimator.notes import Note

_BUFFERS = re.compile(
    r"(running_mean|running_var|num_batches_tracked|position_ids|inv_freq|masked_bias|e_score_correction_bias"
    r"|final_logits_bias|relative_position_index|attn_mask|mean|std|freqs|cos|sin)"
)
_EMBEDDING = re.compile(r"(embed|emb$|wte$|wpe$|shared$|word_embeddings|position_embed|lookup)")
_TRANSPOSED = re.compile(r"(transpos|deconv|upsampl|up_conv|conv_transpose|conv_t\d)")
_FIRST = re.compile(r"(conv_in|conv_?[01]|layers\.0|conv_0\.conv|conv_layers\.0\.conv|conv_pre)$")  # of one channel
_ORDER = (("conv", "patch_embed", "stem"), ("bn", "cls_token"), (), ("norm", "fc_norm"), ("downsample", "fc", "head"))
_BY_DIMENSIONS = {2: "Linear", 3: "Conv1d", 4: "Conv2d", 5: "Conv3d"}


def infer(config: Mapping[str, Any], checkpoint: Checkpoint) -> ModuleTree:
    """The module tree as names and shapes suggest it; `basis` is "inferred", and a note says what was assumed."""
    parameters = run_time_parameters(config, checkpoint.tensors)
    modules = list(_modules(parameters))
    originals = {
        m.name.removesuffix(".parametrizations.weight"): m.parameters for m in modules if m.name.endswith(".weight")
    }
    modules = [m._replace(groups=_groups(m, m.parameters + originals.get(m.name, ()), config)) for m in modules]
    modules, tied, embedding, head = add_tied(config, modules)
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
    ordered = dict(sorted(found.items(), key=lambda item: [_usual_place(part) for part in item[0].split(".")]))
    return [module._replace(name=f"{name}.{module.name}".rstrip(".")) for module in _modules(ordered)]


def _usual_place(part: str) -> tuple[int, int, str]:
    """Where vision models register a part: conv1, bn1, layer1, conv2, ..., then what has no number, the head last."""
    stem = part.rstrip("0123456789")
    number = int(part[len(stem) :]) if stem != part else 1 << 30
    rank = next((rank for rank, words in enumerate(_ORDER) if stem in words), 2)
    return number, rank, stem


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
        children = sorted(below.get(name, ()), key=_place)
        waiting += children[::-1]


def _place(name: str) -> tuple[int, int | str]:
    part = name.rpartition(".")[2]
    return (0, int(part)) if part.isdigit() else (1, 0)


def _module(name: str, own: Mapping[str, Loaded], names: Mapping[str, Any], owners: Mapping[str, Any]) -> Module:
    tensors = [Parameter(leaf, loaded.shape, loaded.dtype) for leaf, loaded in own.items() if loaded.shape is not None]
    buffers = tuple(t for t in tensors if _BUFFERS.fullmatch(t.name) or t.name in names.get("buffers", ()))
    parameters = sorted((t for t in tensors if t not in buffers), key=lambda t: (t.name == "bias", t.name != "weight"))
    kind = _kind(name, {tensor.name: tensor.shape for tensor in parameters}, names, owners)
    named = _class_of_other(own) if kind == "other" else kind
    return Module(name, named, kind, tuple(parameters), buffers)


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
    if len(weight) == 2 and "bias" not in own and _EMBEDDING.search((parent if leaf.isdigit() else leaf).lower()):
        return "Embedding"
    return _BY_DIMENSIONS[len(weight)]


def _groups(module: Module, parameters: tuple[Parameter, ...], config: Mapping[str, Any]) -> int:
    """A convolution's groups: one for each channel where each sees one, or what a `groups` field of the config says."""
    weight = next((p.shape for p in parameters if p.name in ("weight", "original1")), None)
    if module.kind not in ("Conv1d", "Conv2d", "Conv3d") or weight is None:
        return 1
    if weight[1] == 1 and weight[0] > 1:
        return 1 if _FIRST.search(module.name) else weight[0]
    return next((groups for groups in _group_fields(config) if weight[1] * groups == weight[0]), 1)


def _group_fields(config: Mapping[str, Any]) -> list[int]:
    found = [value for key, value in config.items() if "groups" in key and isinstance(value, int) and value > 1]
    return found + [g for value in config.values() if isinstance(value, Mapping) for g in _group_fields(value)]
