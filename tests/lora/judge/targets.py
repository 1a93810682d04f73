"""What a drawn config adapts."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.lora.judge.names import Names, a_name, expression, part_of, several, some_ends

Draw = Callable[[Random, Names], dict[str, Any]]


def targets(random: Random, names: Names) -> dict[str, Any]:
    """target_modules, target_parameters or neither, with what belongs to them."""
    return random.choices(*zip(*_TARGETS, strict=True))[0](random, names)


def _with_layers(random: Random, names: Names) -> dict[str, Any]:
    layers = random.choice(([0], [1], [0, 1], [-1], [5], 0, 1, []))
    patterns = (
        None,
        None,
        "layers",
        "layer",
        "h",
        ["h", "layers", "block"],
        r"(layers|layer|h)",
        r"encoder\.layers",
        "nope",
        [],
    )
    pattern = random.choice(patterns)
    return {
        "target_modules": several(random, names),
        "layers_to_transform": layers,
        **({"layers_pattern": pattern} if pattern is not None else {}),
    }  # fmt: skip


def parameters(random: Random, names: Names, *, alone: bool) -> dict[str, Any]:
    """target_parameters, of experts where there are any; `alone` decides about target_modules as well."""
    many = [name for name, dimensions in names.parameters if dimensions == 3]
    wide = [name for name, dimensions in names.parameters if dimensions >= 2]
    chosen = [random.choice((many or wide) if random.random() < 0.7 else wide) for _ in range(random.randint(1, 3))]
    ends = [".".join(name.split(".")[-random.choice((1, 2, 2, 3, 9)) :]) for name in chosen]
    beside = [] if random.random() < 0.7 else None
    return {"target_parameters": ends, **({"target_modules": beside} if alone else {})}


def _parameters_of_what_else_is_named(random: Random, names: Names) -> dict[str, Any]:
    """A parameter, and the module that holds it or one around it in another field."""
    wide = [name for name, dimensions in names.parameters if dimensions >= 2 and "." in name]
    name = random.choice([name for name, dimensions in names.parameters if dimensions == 3 and "." in name] or wide)
    parts = name.split(".")
    holder = ".".join(parts[random.randint(0, len(parts) - 2) : -1])
    field = random.choice(("target_modules", "modules_to_save", "exclude_modules"))
    beside = {"target_modules": []} if random.random() < 0.5 else {"target_modules": several(random, names)}
    return {"target_parameters": [".".join(parts[-2:])], **beside, field: [holder]}


def _long_list(random: Random, names: Names) -> dict[str, Any]:
    """Twenty names and more, which PEFT condenses."""
    linear = list(names.by_kind["Linear"])
    chosen = random.sample(linear, min(len(linear), random.randint(20, 40)))
    return {"target_modules": chosen + [f"nothing_{number}" for number in range(max(0, 21 - len(chosen)))]}


def _ends(random: Random, names: Names) -> dict[str, Any]:
    """Embeddings and heads, tied or not."""
    ends = some_ends(random, names)
    more = random.choice(([], several(random, names, most=2)))
    listed = random.random() < 0.8
    ranks = {"rank_pattern": {random.choice(ends): 5}} if random.random() < 0.3 else {}
    tying = {"ensure_weight_tying": True} if random.random() < 0.6 else {}
    return {"target_modules": [*ends, *more] if listed else f".*({'|'.join([*ends, *more])})", **ranks, **tying}


def _block_diagonal(random: Random, names: Names) -> dict[str, Any]:
    """BdLoRA on the very modules that are targeted, as it is meant."""
    first, second = (a_name(random, names, kinds=("Linear",)).rpartition(".")[2] for _ in range(2))
    fields = {
        "target_modules_bd_a": [first],
        "nblocks": random.choice((1, 2, 4)),
        "match_strict": random.random() < 0.8,
    }
    if first != second:
        fields["target_modules_bd_b"] = [second]
    return {"target_modules": list(dict.fromkeys((first, second))), "use_bdlora": fields, "r": random.choice((4, 8))}


_EXPERTS = (
    ["gate_proj", "up_proj"], ["gate_proj", "up_proj", "down_proj", "q_proj"], ["down_proj"], ["gate_proj"], ["w1", "w3"],
    ["w1", "w2", "w3"], ["w2", "q_proj"], ["experts.gate_up_proj"], ["gate"], r".*\.(gate_proj|up_proj|down_proj)",
    r".*experts.*", r".*\.(w1|w2|w3|q_proj)",
)  # fmt: skip

_WORDS = ("dummy-target-modules", "all_linear", "", ["all-linear"])
_TARGETS: tuple[tuple[Draw, float], ...] = (
    (lambda random, names: {"target_modules": several(random, names)}, 8),
    (lambda random, names: {"target_modules": several(random, names, kinds=("Linear",))}, 8),
    (lambda random, names: {"target_modules": several(random, names, kinds=("Conv", "Attention", "Embedding"))}, 2),
    (lambda random, names: {"target_modules": random.choice(("all-linear", "all-linear", "ALL-LINEAR", "All-Linear"))}, 5),
    (lambda random, names: {"target_modules": expression(random, names)}, 6),
    (lambda random, names: {}, 3),
    (lambda random, names: {"target_modules": []}, 0.7),
    (_with_layers, 3),
    (_long_list, 1.5),
    (lambda random, names: parameters(random, names, alone=True), 4),
    (_parameters_of_what_else_is_named, 1.5),
    (_ends, 3),
    (_block_diagonal, 1),
    (lambda random, names: {"target_modules": random.choice(_EXPERTS)}, 3),
    (lambda random, names: {"target_modules": [*several(random, names), "no_such_module"]}, 1),
    (lambda random, names: {"target_modules": random.choice(_WORDS)}, 0.6),
    (lambda random, names: {"target_modules": [part_of(random, names)]}, 1),
)  # fmt: skip
