"""Modules of an architecture without facts, from the checkpoint's names, its shapes and config.json alone.

In turn: run-time names (inference/names.py), the kind of each module (inference/kinds.py), input embedding and head
(inference/embeddings.py), what the file leaves out because it is shared (inference/ties.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from estimator.architecture.inference.kinds import (
    Meanings,
    class_of_other,
    expert_counts,
    groups_of,
    kind_of,
    known_meanings,
    shows_conv1d,
    told_apart,
    without_conv1d,
)
from estimator.architecture.inference.names import run_time_parameters
from estimator.architecture.inference.ties import with_shared
from estimator.architecture.load import Loaded
from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.checkpoint.checkpoint import Checkpoint, names_more_modules
from estimator.errors import UnsupportedError
from estimator.notes import Note

Own = Mapping[str, Loaded]  # a module's own tensors
_ORDER = (("conv", "patch_embed", "stem"), ("bn", "cls_token"), (), ("norm", "fc_norm"), ("downsample", "fc", "head"))


_MOST_TENSORS = 150_000
_MOST_MODULES = 100_000  # 384 experts in 61 layers are 93,696; half a gigabyte of guesses helps nobody


def infer(config: Mapping[str, Any], checkpoint: Checkpoint) -> ModuleTree:
    """The module tree as names and shapes suggest it; `basis` is "inferred", and a note says what was assumed.

    Raises UnsupportedError for more tensors or modules than guesses are made about.
    """
    _check_few(checkpoint.tensors)
    modules = list(_modules(run_time_parameters(config, checkpoint.tensors), config))
    shared = with_shared(config, modules)
    architecture = config.get("architectures")
    named = architecture[0] if isinstance(architecture, list) and architecture else None
    return ModuleTree(
        architecture=named,
        config=config,
        modules=tuple(shared.modules),
        tied=shared.tied,
        input_embedding=shared.embedding,
        output_embedding=shared.head,
        declares_ties=bool(shared.tied),
        tie_word_embeddings=bool(shared.tied) or bool(config.get("tie_word_embeddings")),
        transposed=tuple(_transposed(modules)),
        is_composite=any(isinstance(value, Mapping) and "model_type" in value for value in config.values()),
        basis="inferred",
        notes=(_note(named, shared.tied, config, _router(modules, config)),),
    )


def _check_few(names: Collection[str]) -> None:
    if len(names) > _MOST_TENSORS:
        raise _too_many(f"{len(names):,} tensors", f"{_MOST_TENSORS:,}")
    if names_more_modules(names, _MOST_MODULES):
        raise _too_many(f"more than {_MOST_MODULES:,} modules", "so many")


def _too_many(found: str, most: str) -> UnsupportedError:
    what = f"{found} of a class that is not known; {most} are guessed about at most."
    way_out = "check config.json: a class of transformers is known by its name"
    return UnsupportedError(what, where="architectures in config.json", way_out=way_out)


def _transposed(modules: Iterable[Module]) -> Iterator[str]:
    """Parameters of experts kept (experts, in, out): gates and ups are twice as many as what goes down takes."""
    for module in modules:
        shapes = {parameter.name: parameter.shape for parameter in module.parameters}
        up, down = shapes.get("gate_up_proj", ()), shapes.get("down_proj", ())
        if len(up) == len(down) == 3 and up[2] == 2 * down[1] and up[1] == down[2]:
            yield from (f"{module.name}.{name}" for name in shapes)


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
    return [module._replace(name=f"{name}.{module.name}".rstrip("."), groups=1) for module in _modules(ordered, {})]


def _usual_place(part: str) -> tuple[int, int, str]:
    """Where vision models register a part: conv1, bn1, layer1, conv2, ..., then what has no number, the head last."""
    stem = part.rstrip("0123456789")
    number = int(part[len(stem) :]) if stem != part else 1 << 30
    rank = next((rank for rank, words in enumerate(_ORDER) if stem in words), 2)
    return number, rank, stem


def _router(modules: Iterable[Module], config: Mapping[str, Any]) -> str | None:
    """A matrix with a row for each expert that is taken for no Linear: DeepSeek's code has none, Mixtral's one."""
    counts = expert_counts(config)
    matrices = ((m, p.shape) for m in modules for p in m.parameters if m.kind == "other" and p.name == "weight")
    return next((module.name for module, shape in matrices if len(shape) == 2 and shape[0] in counts), None)


def _note(named: Any, tied: Mapping[str, str], config: Mapping[str, Any], router: str | None) -> Note:
    what = named or config.get("model_type") or "this architecture"
    ties = f"; {', '.join(tied)} is taken as tied" if tied else ""
    routers = f"; {router} is taken for a router that is no Linear" if router else ""
    message = (
        f"{what} is not among the known architectures: which modules are Linear, Embedding or convolutions was "
        f"inferred from names and shapes{ties}{routers}. Compare with --verify --device meta before relying on it."
    )
    return Note("inferred", message)


def _modules(parameters: Mapping[str, Loaded], config: Mapping[str, Any]) -> Iterator[Module]:
    """Owners of tensors and the containers above them, in the order of the names."""
    owners: dict[str, dict[str, Loaded]] = {"": {}}
    for name, loaded in parameters.items():
        owner, _, leaf = name.rpartition(".")
        parts = owner.split(".") if owner else []
        for depth in range(len(parts)):
            owners.setdefault(".".join(parts[: depth + 1]), {})
        owners[owner][leaf] = loaded
    for name in [name for name, own in owners.items() if "original0" in own]:
        owners.setdefault(f"{name}.0", {})  # weight_norm is a module as well
    below: dict[str, list[str]] = {}
    for name in owners:
        if name:
            below.setdefault(name.rpartition(".")[0], []).append(name)
    meanings, experts = known_meanings(), expert_counts(config)
    if not any(shows_conv1d(_shape(own, "weight"), _shape(own, "bias")) for own in owners.values()):
        meanings = without_conv1d(meanings)
    for name in _depth_first(below):
        module = _module(name, owners, meanings, experts, config)
        children = below.get(name, ())
        is_list = not owners[name] and children and all(_place(child)[0] == 0 for child in children)
        yield module._replace(cls="ModuleList") if is_list else module


def _shape(own: Own, leaf: str) -> tuple[int, ...] | None:
    return own[leaf].shape if leaf in own else None


def _depth_first(below: Mapping[str, list[str]]) -> Iterator[str]:
    waiting = [""]
    while waiting:
        name = waiting.pop()
        yield name
        waiting += sorted(below.get(name, ()), key=_place)[::-1]


def _place(name: str) -> tuple[int, int]:
    part = name.rpartition(".")[2]
    return (0, int(part)) if part.isdigit() else (1, 0)


def _module(
    name: str, owners: Mapping[str, Own], meanings: Meanings, experts: set[int], config: Mapping[str, Any]
) -> Module:
    own = owners[name]
    tensors = [Parameter(leaf, loaded.shape, loaded.dtype) for leaf, loaded in own.items() if loaded.shape is not None]
    parameters, buffers = told_apart(name, tensors, meanings)
    shapes = {tensor.name: tensor.shape for tensor in parameters}
    original = owners.get(f"{name}.parametrizations.weight", {}).get("original1")
    if original is not None and original.shape is not None:
        shapes["weight"] = original.shape  # a weight that torch's weight_norm keeps in two parts
    kind = kind_of(name, shapes, meanings, experts)
    weight = shapes.get("weight")
    cls = class_of_other(own, len(weight or ())) if kind == "other" else kind
    return Module(name, cls, kind, parameters, buffers, groups_of(name, kind, weight, config))
