"""Fields of a drawn config beside what it adapts."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from tests.lora.judge.names import Names, a_name, expression, part_of, several, some_ends, suffix
from tests.lora.judge.targets import Draw, parameters


def other_fields(random: Random, names: Names) -> dict[str, Any]:
    """One field more, or a few that belong together."""
    return random.choices(*zip(*_FIELDS, strict=True))[0](random, names)


def _exclude(random: Random, names: Names) -> dict[str, Any]:
    chosen = random.choice((several(random, names), expression(random, names), [a_name(random, names)], "", []))
    return {"exclude_modules": chosen}


def _rank_pattern(random: Random, names: Names) -> dict[str, Any]:
    keys = [
        random.choice((suffix(random, a_name(random, names)), expression(random, names), f"^{a_name(random, names)}$"))
        for _ in range(random.randint(1, 3))
    ]
    return {"rank_pattern": {key: random.choice((1, 2, 4, 5, 6, 20, 32, 64, 0)) for key in keys}}


def ranks_left(random: Random, names: Names) -> dict[str, Any]:
    """What training leaves in an AdaLoRA config."""
    kept = [random.random() < 0.6 for _ in range(random.choice((12, 12, 5)))]
    linear = names.by_kind["Linear"]
    return {"rank_pattern": {f"{name}.lora_E": kept for name in random.sample(linear, min(2, len(linear)))}}


def _alpha_pattern(random: Random, names: Names) -> dict[str, Any]:
    return {"alpha_pattern": {expression(random, names): random.choice((1, 16, 0, 2.5))}}


def _saves(random: Random, names: Names) -> dict[str, Any]:
    some = [
        random.choice((part_of(random, names), suffix(random, a_name(random, names)),
                       suffix(random, a_name(random, names, kinds=("Embedding", "other")))))
        for _ in range(random.randint(1, 3))
    ]  # fmt: skip
    return {"modules_to_save": list(dict.fromkeys(some))}


def _saves_inside(random: Random, names: Names) -> dict[str, Any]:
    """A module and one around it, in either order."""
    parts = a_name(random, names, kinds=("Linear", "Embedding", "other")).split(".")
    some = [".".join(parts), ".".join(parts[: random.randint(1, len(parts))])]
    return {"modules_to_save": random.sample(some, 2)}


def _saves_ends(random: Random, names: Names) -> dict[str, Any]:
    more = [] if random.random() < 0.7 else [part_of(random, names)]
    return {"modules_to_save": [*some_ends(random, names), *more], "ensure_weight_tying": random.random() < 0.6}


def _tokens(random: Random, names: Names) -> dict[str, Any]:
    some = random.choice(([0, 1, 2], [3], [], [5, 5], [-1], [100], [10**6]))
    layers = [
        suffix(random, a_name(random, names, kinds=("Embedding", "Embedding", "Embedding", "Linear")))
        for _ in range(random.randint(1, 2))
    ]
    return {"trainable_token_indices": random.choice((some, some, dict.fromkeys(layers, some)))}


def _tokens_of_ends(random: Random, names: Names) -> dict[str, Any]:
    """Rows of embeddings and heads, the same ones or others."""
    rows: Mapping[str, list[int]] = {
        name: random.choice(([1, 2], [1, 2], [2, 1], [3])) for name in some_ends(random, names)
    }
    return {"trainable_token_indices": rows, "ensure_weight_tying": random.random() < 0.5}


def _replication(random: Random, names: Names) -> dict[str, Any]:
    maps = ([[0, 2], [1, 2]], [[0, 1], [0, 1]], [[1, 3], [0, 2]], [[0, 9]], [[1, 1]], [[-1, 1]])
    return {"layer_replication": random.choice(maps)}


def _init(random: Random, names: Names) -> dict[str, Any]:
    """CorDA wants prepared data and LoftQ a GPU; both refuse here."""
    values = (
        False, "gaussian", "eva", "olora", "pissa", "pissa_niter_2", "pissa_niter_x", "orthogonal",
        "lora_ga", "mica", "nonsense", "Gaussian", "OLoRA", "PiSSA", True,
    )  # fmt: skip
    value = random.choice(values)
    rank = {"r": random.choice((8, 60, 200))} if random.random() < 0.3 else {}
    return {
        "init_lora_weights": value,
        **rank,
        **({"eva_config": {}} if value == "eva" and random.random() < 0.6 else {}),
    }


def _variant(random: Random, names: Names) -> dict[str, Any]:
    last = [a_name(random, names, kinds=("Linear",)).rpartition(".")[2] for _ in range(2)]
    bdlora = {"target_modules_bd_a": last[:1], "target_modules_bd_b": last[1:], "nblocks": random.choice((1, 2, 3))}
    return random.choice(
        (
            {"use_bdlora": {**bdlora, "match_strict": random.random() < 0.3}},
            {"use_qalora": True, "qalora_group_size": random.choice((4, 16))},
            {"alora_invocation_tokens": random.choice(([1, 2], []))},
            {"kasa_config": random.choice(({}, {"beta": 0.1}, {"gamma": -1}))},
            {"velora_config": {"num_groups": random.choice((4, 7, 64))}},
            {"monteclora_config": {"num_samples": random.choice((2, 8))}},
            {"arrow_config": {"top_k": 2}},
            {"use_dora": True},
        )
    )


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
    (_saves_inside, 1),
    (_saves_ends, 2),
    (_tokens, 3),
    (_tokens_of_ends, 1.5),
    (_replication, 1),
    (_init, 2),
    (_variant, 3),
    (_nothing_trains, 1.5),
    (lambda random, names: {"bias": random.choice(("all", "all", "lora_only", "lora_only", "some", "x_only"))}, 3),
    (lambda random, names: {"lora_bias": True}, 1.5),
    (lambda random, names: {"use_dora": True}, 2),
    (lambda random, names: {"ensure_weight_tying": True}, 2),
    (lambda random, names: {"task_type": random.choice(_TASKS)}, 3),
    (lambda random, names: parameters(random, names, alone=False), 1.5),
)
