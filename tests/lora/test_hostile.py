"""What strangers' files bring: one message, in bounded time and memory."""

from __future__ import annotations

import pytest

from estimator.errors import InvalidLoraError, LoraSizeError
from estimator.lora.adapt import adapt
from estimator.request import patterns
from estimator.request.lora_config import from_mapping
from tests.lora.small import TIED, TREE

ENDLESS = r"(\w|\.|[a-z.]+)+x"
MANY = 100_000  # a million takes ten times as long, a few seconds each


@pytest.fixture(autouse=True)
def _short_deadline(monkeypatch):
    monkeypatch.setattr(patterns, "DEADLINE_SECONDS", 0.3)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"target_modules": ENDLESS}, id="target_modules"),
        pytest.param({"target_modules": r"(a+)+$" + "|" + ENDLESS}, id="target_modules, one of two"),
        pytest.param({"exclude_modules": ENDLESS}, id="exclude_modules"),
        pytest.param({"rank_pattern": {ENDLESS: 4}}, id="rank_pattern"),
        pytest.param({"alpha_pattern": {ENDLESS: 4}}, id="alpha_pattern"),
        pytest.param({"modules_to_save": [ENDLESS]}, id="modules_to_save"),
        pytest.param({"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": ENDLESS}, id="layers_pattern"),
        pytest.param({"rank_pattern": {f"{ENDLESS}{number}": 4 for number in range(500)}}, id="rank_pattern, five hundred keys"),
        pytest.param({"target_modules": ["q_proj"], "layers_to_transform": [0],
                      "layers_pattern": [f"{ENDLESS}{number}" for number in range(500)]}, id="layers_pattern, five hundred"),
    ],
)  # fmt: skip
def test_an_endless_pattern_is_one_message(config):
    with pytest.raises(LoraSizeError, match="takes longer than"):
        adapt(TREE, from_mapping(config))


def test_an_endless_name_of_a_tied_module_is_one_message():
    with pytest.raises(LoraSizeError):
        adapt(TIED, from_mapping({"modules_to_save": ["embed_tokens", ENDLESS], "ensure_weight_tying": True}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("target_modules", {"q_proj": 1}, id="an object where names belong"),
        pytest.param("target_modules", [["q_proj"]], id="a list in a list"),
        pytest.param("target_modules", 5, id="a number where names belong"),
        pytest.param("exclude_modules", [1], id="a number where a name belongs"),
        pytest.param("modules_to_save", "lm_head", id="a text where a list belongs"),
        pytest.param("target_parameters", "weight", id="a text, which PEFT does not take for an expression"),
        pytest.param("rank_pattern", ["q_proj"], id="a list where an object belongs"),
        pytest.param("rank_pattern", {"q_proj": "8"}, id="a text where a rank belongs"),
        pytest.param("rank_pattern", {"q_proj": 2.5}, id="half a rank"),
        pytest.param("rank_pattern", {"q_proj": None}, id="no rank"),
        pytest.param("rank_pattern", {"q_proj": [4]}, id="a list where a rank belongs"),
        pytest.param("rank_pattern", {"q_proj": 10**30}, id="a rank no matrix can have"),
        pytest.param("alpha_pattern", {"q_proj": [1]}, id="a list where an alpha belongs"),
        pytest.param("alpha_pattern", {"q_proj": 10**400}, id="an alpha no float can be"),
        pytest.param("lora_alpha", 10**400, id="an alpha for all that no float can be"),
        pytest.param("lora_alpha", "16", id="a text where a number belongs"),
        pytest.param("r", 10**30, id="a rank of thirty-one digits"),
        pytest.param("r", -1, id="a negative rank"),
        pytest.param("r", True, id="true where a rank belongs"),
        pytest.param("r", [8], id="a list where a rank belongs"),
        *[pytest.param(name, None, id=f"no {name}") for name in
          ("r", "lora_alpha", "lora_dropout", "bias", "rank_pattern", "alpha_pattern")],
        pytest.param("layers_to_transform", ["0"], id="a text where a layer's number belongs"),
        pytest.param("layers_to_transform", {"0": 1}, id="an object where layers belong"),
        pytest.param("layer_replication", [[0]], id="half a range"),
        pytest.param("layer_replication", [[0, [1]]], id="a list where a layer's number belongs"),
        pytest.param("lora_dropout", 1.5, id="more than certain"),
        pytest.param("layer_replication", [[0, 10**9]], id="a billion layers"),
        pytest.param("layer_replication", [[0, 1]] * 200_000, id="two hundred thousand layers"),
        pytest.param("trainable_token_indices", [10**30], id="a token that no table has"),
        pytest.param("trainable_token_indices", ["a"], id="a text where a token belongs"),
        pytest.param("trainable_token_indices", {"embed_tokens": "012"}, id="a text where tokens belong"),
        pytest.param("trainable_token_indices", {"embed_tokens": None}, id="nothing where tokens belong"),
        pytest.param("trainable_token_indices", (0, 1), id="a tuple, which is one place to torch"),
        pytest.param("use_dora", "false", id="a text where true or false belongs"),
        pytest.param("init_lora_weights", 1, id="a number that is read as a text"),
        pytest.param("trainable_token_indices", {f"x{n}": [0] for n in range(50_000)}, id="fifty thousand embeddings"),
        pytest.param("use_bdlora", {"target_modules_bd_a": ["q"] * 50_000}, id="fifty thousand block-diagonal names"),
        pytest.param("use_bdlora", {"nblocks": 0}, id="no blocks"),
        pytest.param("use_bdlora", {"nblocks": "2", "match_strict": False}, id="a text where blocks belong"),
        pytest.param("use_bdlora", [1], id="a list where an object belongs"),
        pytest.param("velora_config", {"num_groups": "x"}, id="a text where groups belong"),
        pytest.param("velora_config", {"num_groups": 2.5}, id="half a group"),
        pytest.param("monteclora_config", {"num_samples": []}, id="a list where samples belong"),
        pytest.param("monteclora_config", {"num_samples": 10**30}, id="more samples than memory"),
        pytest.param("bias", ["all"], id="a list where a text belongs"),
        pytest.param("init_lora_weights", ["pissa"], id="a list where an initialisation belongs"),
        pytest.param("init_lora_weights", "pissa_niter_" + "9" * 5_000, id="more digits than Python reads"),
        pytest.param("task_type", 5, id="a number where a task belongs"),
        pytest.param("peft_type", ["LORA"], id="a list where a type belongs"),
        pytest.param("exclude_modules", "(" * 5_000, id="five thousand brackets"),
        pytest.param("target_modules", ".*" * 30_000, id="an expression of sixty thousand letters"),
        pytest.param("rank_pattern", {f"a.{n}": 1 for n in range(3_000)}, id="three thousand expressions"),
        pytest.param("alpha_pattern", {5: 4}, id="a number where a name belongs"),
        pytest.param("trainable_token_indices", {5: [4]}, id="a number where an embedding belongs"),
        pytest.param("kasa_config", "yes", id="a text where an object belongs"),
        pytest.param("use_bdlora", {"target_modules_bd_a": 3}, id="a number where block-diagonal names belong"),
        pytest.param("use_bdlora", {"target_modules_bd_b": [1]}, id="a number where a block-diagonal name belongs"),
        pytest.param("monteclora_config", {"samples": 8}, id="a field that MonteCLoRA does not have"),
        pytest.param("monteclora_config", {"buffer_size": 2.5}, id="half a place of a buffer"),
    ],
)  # fmt: skip
def test_a_bad_value_is_one_message(field, value):
    with pytest.raises(LoraSizeError) as refusal:
        adapt(TREE, from_mapping({field: value}))
    error = refusal.value
    assert error.code in ("invalid_lora", "unsupported")
    assert len(error.what) + len(error.where) + len(error.way_out) < 1_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tinit", None), ("tinit", "1"), ("tfinal", [1]), ("orth_reg_weight", {}), ("target_r", None), ("total_step", "9"),
        ("beta1", 0), ("beta1", True), ("beta2", 1), ("beta2", None), ("beta2", 10**400),
    ],
)  # fmt: skip
def test_a_bad_value_of_adalora_is_one_message(field, value):
    config = {"peft_type": "ADALORA", "total_step": 9, "target_modules": ["q_proj"], field: value}
    with pytest.raises(InvalidLoraError) as refusal:
        adapt(TREE, from_mapping(config))
    assert refusal.value.where == field


@pytest.mark.parametrize(
    ("tokens", "kind"),
    [
        pytest.param((0, 1), "which is a tuple", id="one place"),
        pytest.param({0, 1}, "which is a set", id="a set"),
        pytest.param({"embed_tokens": (0, 1)}, r"are '\(0, 1\)', no list", id="one place of a named table"),
        pytest.param({"embed_tokens": None}, "are 'None', no list", id="the whole table in a third dimension"),
    ],
)
def test_tokens_that_no_forward_pass_takes_are_refused_for_that(tokens, kind):
    with pytest.raises(LoraSizeError, match=f"{kind}.*, on which PEFT fails, at the latest in the first forward pass"):
        adapt(TREE, from_mapping({"trainable_token_indices": tokens}))


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"target_modules": [f"x{n}" for n in range(MANY)] + ["q_proj"]}, id="targets"),
        pytest.param({"target_modules": ["q_proj"], "exclude_modules": [f"x{n}" for n in range(MANY)]}, id="exclusions"),
        pytest.param({"target_modules": ["q_proj"], "modules_to_save": [f"x{n}" for n in range(MANY)]}, id="saved modules"),
        pytest.param({"target_modules": ["q_proj"], "rank_pattern": {f"x{n}": 4 for n in range(MANY)}}, id="ranks"),
        pytest.param({"target_modules": ["q_proj"], "layers_to_transform": list(range(MANY))}, id="layers"),
        pytest.param({"target_parameters": [f"x{n}" for n in range(MANY)] + ["q_proj.weight"], "target_modules": []},
                     id="parameters"),
        pytest.param({"target_modules": ["q_proj"], "trainable_token_indices": [0] * MANY}, id="tokens"),
    ],
)  # fmt: skip
def test_a_long_list_is_answered(config):
    answer = adapt(TREE, from_mapping({**config, "r": 1}))
    assert answer.modules
    assert all(len(note.message) < 2_000 for note in answer.notes)
