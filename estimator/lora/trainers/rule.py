"""What a trainer's rule hands on, and the questions that every rule asks of a tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.errors import NoTargetModulesError, UnsupportedError, UsageError
from estimator.notes import Note


class Resolved(NamedTuple):
    """What a trainer's own way to name targets comes to: the tree as it builds it, and PEFT's fields."""

    tree: ModuleTree  # as the trainer builds it
    lora: dict[str, Any]  # fields of a LoraConfig
    notes: tuple[Note, ...] = ()


def linear(tree: ModuleTree) -> list[Module]:
    """What is a torch.nn.Linear once the base is loaded: bitsandbytes makes one of GPT-2's Conv1D."""
    made = {name for name, layer in tree.quantised.items() if layer.is_linear}
    return [module for module in tree.modules if module.kind == "Linear" or module.name in made]


def called_linear(tree: ModuleTree) -> list[Module]:
    """What has "Linear" in its class's name: a router that is a Linear may lack it, a block of KimiLinear has it."""
    return [module for module in tree.modules if "Linear" in class_of(tree, module)]


def class_of(tree: ModuleTree, module: Module) -> str:
    """As it is called once the base is loaded."""
    layer = tree.quantised.get(module.name)
    return module.cls if layer is None else layer.cls


def leaf(name: str) -> str:
    return name.rpartition(".")[2]


def has_part(name: str, parts: Sequence[str]) -> bool:
    return any(part in name for part in parts)


def has_experts(tree: ModuleTree) -> bool:
    return any(".experts" in module.name for module in tree.modules)


def experts_side_by_side(tree: ModuleTree, names: Sequence[str]) -> Iterator[Module]:
    """A Linear for the gates, the ups and the downs of each layer's experts: as many parameters as an adapter each.

    Its in and out features are those of all experts together (they may change places, which changes no count), since
    r·E·(in + out) is what E adapters of r·(in + out) have. names: what the trainer calls the three.
    """
    for module in tree.modules:
        shapes = {p.name: p.shape for p in module.parameters}
        if "gate_up_proj" not in shapes or len(shapes.get("down_proj", ())) != 3:
            continue
        count, *features = shapes["down_proj"]
        shape = tuple(count * size for size in features)
        weight = (Parameter("weight", shape, module.parameters[0].dtype),)
        for name in names:
            yield Module(f"{module.name}.{name}", "Linear", "Linear", weight)


def refuse_none(tree: ModuleTree, found: Sequence[str], key: str) -> None:
    """Raises NoTargetModulesError where a trainer finds nothing that it calls a Linear: GPT-2 has Conv1D."""
    if not found:
        there = sorted({leaf(module.name) for module in tree.modules if module.kind == "Conv1D"})
        way_out = f"name {', '.join(there)} in {key}" if there else f"name modules in {key}"
        what = f"the trainer finds no Linear in {tree.architecture}, so PEFT would refuse."
        raise NoTargetModulesError(what, where=f"{key} in --config", way_out=way_out)


def refuse_unsloths_own(tree: ModuleTree, *, has_towers: bool) -> None:
    """Raises UnsupportedError for towers whose names Unsloth may not take as they are, for experts, and for fused
    layers, which its own copies of a model have apart.
    """
    fused = any(leaf(module.name) in ("qkv_proj", "gate_up_proj", "query_key_value") for module in linear(tree))
    if has_towers or fused or has_experts(tree):
        raise uncounted("Unsloth makes a target pattern of its own for this model", "name the modules with --targets")


def uncounted(what: str, way_out: str) -> UnsupportedError:
    return UnsupportedError(f"{what}: not counted.", where="--config", way_out=way_out)


def refused(what: str, key: str, way_out: str) -> UsageError:
    """The trainer itself would stop here."""
    return UsageError(f"{what}.", where=f"{key} in --config", way_out=way_out)
