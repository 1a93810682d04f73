"""A LoraConfig drawn at random for one model: every field that decides what exists, trains or is saved."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Names:
    """What a drawing chooses from: names of the real model."""

    by_kind: Mapping[str, tuple[str, ...]]  # "Linear", "Embedding", "other", ...: full names of modules
    parameters: tuple[tuple[str, int], ...]  # full name, dimensions
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
        "Conv": (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d),
    }  # fmt: skip
    by_kind: dict[str, list[str]] = {"Linear": [], "Embedding": [], "Conv": [], "other": []}
    for name, module in model.named_modules():
        if name:
            kind = next((kind for kind, classes in kinds.items() if isinstance(module, classes)), "other")
            by_kind[kind].append(name)
    try:
        embedding = model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        embedding = None
    rows = embedding.weight.shape[0] if isinstance(embedding, torch.nn.Embedding) else None
    return Names(
        by_kind={kind: tuple(found) for kind, found in by_kind.items()},
        parameters=tuple((name, p.dim()) for name, p in model.named_parameters()),
        rows=rows,
    )


@dataclass(frozen=True, kw_only=True)
class Drawing:
    lora: dict[str, Any]
    options: dict[str, Any]  # vocab_size, adapter_dtype, save_embedding_layers


def draw(random: Random, names: Names) -> Drawing:
    """One config: targets first, then some of the other fields, seldom the ones that refuse nearly everything."""
    lora: dict[str, Any] = {"r": random.choice((1, 2, 3, 4, 4, 8, 12, 16))}
    if random.random() < 0.1:
        lora["peft_type"] = "ADALORA"
        lora |= {"total_step": random.choice((10, 10, 10, 0)), "init_r": random.choice((0, 1, 5, 12))}
    lora |= _targets(random, names)
    for _ in range(random.choice((0, 1, 1, 1, 2, 2))):
        lora |= random.choices(*zip(*_FIELDS, strict=True))[0](random, names)
    if "peft_type" in lora and random.random() < 0.3:
        lora |= _ranks_left(random, names)
    return Drawing(lora=lora, options=_options(random, names))


def _options(random: Random, names: Names) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if random.random() < 0.1:
        options["adapter_dtype"] = "base"
    if random.random() < 0.1:
        options["save_embedding_layers"] = random.choice(("yes", "no"))
    if names.rows is not None and random.random() < 0.07:
        options["vocab_size"] = names.rows + random.choice((1, 7, -3))
    return options


# Names and patterns


def _name(
    random: Random,
    names: Names,
    kinds: tuple[str, ...] = ("Linear",) * 22 + ("Embedding", "Embedding", "Conv", "other"),
) -> str:
    """A full name of a random kind."""
    return random.choice(names.by_kind[random.choice(kinds)] or names.modules)


def _suffix(random: Random, name: str) -> str:
    """The name's last part, or more of it, or all."""
    parts = name.split(".")
    count = random.choice((1, 1, 1, 1, 1, 2, 2, 3, len(parts)))
    return ".".join(parts[-min(count, len(parts)) :])


def _several(random: Random, names: Names, most: int = 4, **kinds: Any) -> list[str]:
    return list(dict.fromkeys(_suffix(random, _name(random, names, **kinds)) for _ in range(random.randint(1, most))))


def _expression(random: Random, names: Names) -> str:
    name = _name(random, names)
    last = name.rpartition(".")[2]
    other = _name(random, names).rpartition(".")[2]
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


def _part_of(random: Random, names: Names) -> str:
    """Any part of any name, seldom a piece of a word."""
    part = random.choice(_name(random, names, kinds=("Linear", "Embedding", "other")).split("."))
    return part if random.random() < 0.85 else part[random.randint(0, max(len(part) - 3, 0)) :]


# Targets


def _targets(random: Random, names: Names) -> dict[str, Any]:
    return random.choices(*zip(*_TARGETS, strict=True))[0](random, names)


def _with_layers(random: Random, names: Names) -> dict[str, Any]:
    layers = random.choice(([0], [1], [0, 1], [-1], [5], 0, 1, []))
    pattern = random.choice(
        (
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
    )
    return {
        "target_modules": _several(random, names),
        "layers_to_transform": layers,
        **({"layers_pattern": pattern} if pattern is not None else {}),
    }


def _parameters(random: Random, names: Names, *, alone: bool) -> dict[str, Any]:
    many = [name for name, dimensions in names.parameters if dimensions == 3]
    wide = [name for name, dimensions in names.parameters if dimensions >= 2]
    chosen = [random.choice((many or wide) if random.random() < 0.7 else wide) for _ in range(random.randint(1, 3))]
    ends = [".".join(name.split(".")[-random.choice((1, 2, 2, 3, 9)) :]) for name in chosen]
    beside = [] if random.random() < 0.7 else None
    return {"target_parameters": ends, **({"target_modules": beside} if alone else {})}


def _long_list(random: Random, names: Names) -> dict[str, Any]:
    """Twenty names and more, which PEFT condenses."""
    linear = list(names.by_kind["Linear"])
    chosen = random.sample(linear, min(len(linear), random.randint(20, 40)))
    return {"target_modules": chosen + [f"nothing_{number}" for number in range(max(0, 21 - len(chosen)))]}


_EXPERTS = (
    ["gate_proj", "up_proj"], ["gate_proj", "up_proj", "down_proj", "q_proj"], ["down_proj"], ["gate_proj"], ["w1", "w3"],
    ["w1", "w2", "w3"], ["w2", "q_proj"], ["experts.gate_up_proj"], ["gate"], r".*\.(gate_proj|up_proj|down_proj)",
    r".*experts.*", r".*\.(w1|w2|w3|q_proj)",
)  # fmt: skip

Draw = Callable[[Random, Names], dict[str, Any]]
_TARGETS: tuple[tuple[Draw, float], ...] = (
    (lambda random, names: {"target_modules": _several(random, names)}, 8),
    (lambda random, names: {"target_modules": _several(random, names, kinds=("Linear",))}, 8),
    (
        lambda random, names: {
            "target_modules": random.choice(("all-linear", "all-linear", "ALL-LINEAR", "All-Linear"))
        },
        5,
    ),
    (lambda random, names: {"target_modules": _expression(random, names)}, 6),
    (lambda random, names: {}, 3),
    (lambda random, names: {"target_modules": []}, 0.7),
    (_with_layers, 3),
    (_long_list, 1.5),
    (lambda random, names: _parameters(random, names, alone=True), 4),
    (lambda random, names: {"target_modules": random.choice(_EXPERTS)}, 3),
    (lambda random, names: {"target_modules": [*_several(random, names), "no_such_module"]}, 1),
    (
        lambda random, names: {
            "target_modules": random.choice(("dummy-target-modules", "all_linear", "", ["all-linear"]))
        },
        0.6,
    ),
    (lambda random, names: {"target_modules": [_part_of(random, names)]}, 1),
)


# The other fields


def _exclude(random: Random, names: Names) -> dict[str, Any]:
    chosen = random.choice((_several(random, names), _expression(random, names), [_name(random, names)], "", []))
    return {"exclude_modules": chosen}


def _rank_pattern(random: Random, names: Names) -> dict[str, Any]:
    keys = [
        random.choice((_suffix(random, _name(random, names)), _expression(random, names), f"^{_name(random, names)}$"))
        for _ in range(random.randint(1, 3))
    ]
    return {
        "rank_pattern": {key: random.choice((1, 2, 5, 6, 20, 32, 0)) if random.random() < 0.9 else 4 for key in keys}
    }


def _ranks_left(random: Random, names: Names) -> dict[str, Any]:
    """What training leaves in an AdaLoRA config."""
    kept = [random.random() < 0.6 for _ in range(random.choice((12, 12, 5)))]
    linear = names.by_kind["Linear"]
    return {"rank_pattern": {f"{name}.lora_E": kept for name in random.sample(linear, min(2, len(linear)))}}


def _alpha_pattern(random: Random, names: Names) -> dict[str, Any]:
    return {"alpha_pattern": {_expression(random, names): random.choice((1, 16, 0, 2.5))}}


def _saves(random: Random, names: Names) -> dict[str, Any]:
    some = [
        random.choice((_part_of(random, names), _suffix(random, _name(random, names)), _suffix(random, _name(random, names, kinds=("Embedding", "other")))))
        for _ in range(random.randint(1, 2))
    ]  # fmt: skip
    return {"modules_to_save": list(dict.fromkeys(some))}


def _tokens(random: Random, names: Names) -> dict[str, Any]:
    some = random.choice(([0, 1, 2], [3], [], [5, 5], [-1], [100], [10**6]))
    layers = [
        _suffix(random, _name(random, names, kinds=("Embedding", "Embedding", "Embedding", "Linear")))
        for _ in range(random.randint(1, 2))
    ]
    return {"trainable_token_indices": random.choice((some, some, dict.fromkeys(layers, some)))}


def _replication(random: Random, names: Names) -> dict[str, Any]:
    return {
        "layer_replication": random.choice(
            ([[0, 2], [1, 2]], [[0, 1], [0, 1]], [[1, 3], [0, 2]], [[0, 9]], [[1, 1]], [[-1, 1]])
        )
    }


def _init(random: Random, names: Names) -> dict[str, Any]:
    """CorDA wants prepared data and LoftQ a GPU; both refuse here."""
    values = (
        False, "gaussian", "eva", "olora", "pissa", "pissa_niter_2", "pissa_niter_x", "orthogonal",
        "lora_ga", "mica", "nonsense", "Gaussian", "OLoRA", "PiSSA", True,
    )  # fmt: skip
    value = random.choice(values)
    more: dict[str, Any] = {
        "eva": {"eva_config": {}},
        "corda": {"corda_config": {}},
        "loftq": {"loftq_config": {"loftq_bits": 4}},
    }
    extra = more.get(str(value), {}) if random.random() < 0.6 else {}
    return {"init_lora_weights": value, **extra}


def _variant(random: Random, names: Names) -> dict[str, Any]:
    last = [_name(random, names, kinds=("Linear",)).rpartition(".")[2] for _ in range(2)]
    return random.choice(
        (
            {"use_bdlora": {"target_modules_bd_a": last[:1], "target_modules_bd_b": last[1:], "nblocks": random.choice((1, 2, 3)),
                            "match_strict": random.random() < 0.3}},
            {"use_qalora": True, "qalora_group_size": random.choice((4, 16))},
            {"alora_invocation_tokens": random.choice(([1, 2], []))},
            {"kasa_config": {}},
            {"velora_config": {"num_groups": random.choice((4, 7, 64))}},
            {"monteclora_config": {"num_samples": random.choice((2, 8))}},
            {"arrow_config": {"top_k": 2}},
            {"use_dora": True},
        )
    )  # fmt: skip


def _nothing_trains(random: Random, names: Names) -> dict[str, Any]:
    """Fields that decide nothing about sizes; inference_mode, which every saved config has, is left out."""
    return random.choice(
        (
            {"use_rslora": True}, {"lora_alpha": 3.5}, {"alpha_pattern": {"q_proj": "8"}}, {"lora_dropout": 0.1}, {"fan_in_fan_out": True},
            {"megatron_core": "x"}, {"revision": "abc"}, {"lora_alpha": 0},
        )
    )  # fmt: skip


_TASKS = ("CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION", "NO_TASK")
_FIELDS: tuple[tuple[Draw, float], ...] = (
    (_exclude, 3),
    (_rank_pattern, 3),
    (_alpha_pattern, 1),
    (_saves, 4),
    (_tokens, 3),
    (_replication, 1),
    (_init, 2),
    (_variant, 3),
    (_nothing_trains, 1.5),
    (lambda random, names: {"bias": random.choice(("all", "all", "lora_only", "lora_only", "some", "x_only"))}, 3),
    (lambda random, names: {"lora_bias": True}, 1.5),
    (lambda random, names: {"use_dora": True}, 2),
    (lambda random, names: {"ensure_weight_tying": True}, 2),
    (lambda random, names: {"task_type": random.choice(_TASKS)}, 3),
    (lambda random, names: _parameters(random, names, alone=False), 1.5),
)
