"""Modules saved whole and rows of tokens, where wrappers meet layers and one another; outcomes as PEFT 0.21.2 has them."""

from __future__ import annotations

import json

import pytest

from estimator.errors import InvalidLoraError
from estimator.jobs.estimate import estimate
from estimator.lora.adapt import adapt
from estimator.lora.index import TreeIndex
from estimator.lora.ties import saves_depend_on_order, targets_depend_on_order
from estimator.request.lora_config import from_mapping
from estimator.request.request import Request
from tests.lora.small import ROWS, TIED, TREE, WIDTH, Q, V

LAYER = 48 * WIDTH + 16 * WIDTH + 16 + WIDTH  # parameters of one layer
PREFIX = "base_model.model."


@pytest.mark.parametrize(
    ("tree", "config", "trained", "added"),
    [
        pytest.param(TREE, {"modules_to_save": ["0"], "target_modules": ["v_proj"]}, LAYER + V, LAYER + V,
                     id="a layer saved whole is not adapted"),
        pytest.param(TREE, {"modules_to_save": ["yers.0"], "target_modules": ["v_proj"]}, LAYER + 2 * V, LAYER + 3 * V,
                     id="a piece of a name wraps what is adapted; LoRA trains in the copy"),
        pytest.param(TREE, {"modules_to_save": ["ayers.0", "norm"], "target_modules": ["v_proj"]},
                     LAYER + 2 * V + WIDTH, LAYER + 3 * V + 2 * WIDTH, id="a copy in a copy, and one beside it"),
        pytest.param(TREE, {"modules_to_save": ["lm_head"], "bias": "all", "target_modules": ["q_proj"]},
                     ROWS * WIDTH + 2 * Q + 2 * 16, ROWS * WIDTH + 2 * Q, id="biases train beside"),
        pytest.param(TREE, {"trainable_token_indices": {"embed_tokens": [1], "lm_head": [1, 2]}, "target_modules": ["q_proj"]},
                     2 * Q + 3 * WIDTH, 2 * Q + 3 * WIDTH, id="rows of two tables"),
        pytest.param(TIED, {"trainable_token_indices": [1, 1], "target_modules": ["q_proj"]}, 2 * Q + 2 * WIDTH,
                     2 * Q + 2 * WIDTH, id="tied rows count once, the same row twice"),
        *(
            pytest.param(TIED, {"trainable_token_indices": given, "target_modules": ["q_proj"], **more}, 2 * Q + rows * WIDTH,
                         2 * Q + rows * WIDTH, id=why)
            for given, more, rows, why in (
                ({"embed_tokens": [1], "lm_head": [1]}, {}, 1, "the same row of both tables counts once"),
                ({"embed_tokens": [1], "lm_head": [2]}, {}, 2, "other rows are untied"),
                ({"lm_head": [1]}, {}, 1, "a row of the head alone"),
            )
        ),
        pytest.param(TREE, {"modules_to_save": ["layers.0", "0.v_proj"], "target_modules": ["1.v_proj"]},
                     LAYER + V, LAYER + V + 16 * (WIDTH + 1), id="a piece of a copy is copied once more"),
        pytest.param(TIED, {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True, "target_modules": ["q_proj"]},
                     2 * Q + ROWS * WIDTH, 2 * Q + ROWS * WIDTH, id="the tied copy counts once"),
        pytest.param(TIED, {"target_modules": ["embed_tokens"], "rank_pattern": {"lm_head": 3}, "ensure_weight_tying": True},
                     2 * (ROWS + WIDTH), 2 * (ROWS + WIDTH), id="the head's matrices are the embedding's, whatever its rank"),
    ],
)  # fmt: skip
def test_wrappers_train_and_add_what_peft_counts(tree, config, trained, added):
    answer = adapt(tree, from_mapping({**config, "r": 1}))
    assert answer.trainable_parameters == trained
    assert answer.added_parameters == added


BART = {"architectures": ["BartForConditionalGeneration"], "model_type": "bart", "vocab_size": 40, "d_model": 16,
        **{f"{side}_{name}": size for side in ("encoder", "decoder")
           for name, size in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 24))},
        "max_position_embeddings": 30, "tie_word_embeddings": True, "dtype": "float32"}  # fmt: skip


@pytest.mark.parametrize(
    ("targets", "trained", "file_bytes"),
    [
        pytest.param({"target_parameters": ["fc1.weight"], "target_modules": []}, 7120, 41368, id="in the copy"),
        pytest.param({"target_modules": ["lm_head"]}, 7024, 40656, id="beside the copy"),
    ],
)
def test_rows_of_a_part_that_is_saved_whole_are_tied_in_its_copy(targets, trained, file_bytes, tmp_path):
    """BartModel ties its encoder's and its decoder's table, wherever it stands."""
    (tmp_path / "config.json").write_text(json.dumps(BART))
    config = {"r": 4, "modules_to_save": ["model"], "trainable_token_indices": [1, 2], **targets}
    answer = estimate(Request(model=str(tmp_path), lora=config))
    assert (answer.adaptation.trainable_parameters, answer.file_bytes) == (trained, file_bytes)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        pytest.param({"modules_to_save": ["proj"]}, "adapted already|wraps already", id="the end of an adapted module's name"),
        pytest.param({"modules_to_save": ["dropout"]}, "ModuleDict", id="a container of LoRA's own"),
        pytest.param({"modules_to_save": ["layers"], "target_modules": ["lm_head"]}, "ModuleList", id="a list of layers"),
        pytest.param({"trainable_token_indices": {"norm": [0]}}, "no rows of tokens", id="a norm has no tokens"),
        pytest.param({"trainable_token_indices": {"nope": [0]}}, "no module is called", id="no such table"),
        pytest.param({"trainable_token_indices": {"embed_tokens": [True]}}, "no list of numbers", id="no number"),
        pytest.param({"trainable_token_indices": {"lm_head": [0]}, "modules_to_save": ["lm_head"]}, "modules_to_save",
                     id="a table in both fields"),
        pytest.param({"trainable_token_indices": [0], "target_modules": ["embed_tokens"]}, "wraps already",
                     id="a table that is adapted"),
    ],
)  # fmt: skip
def test_wrappers_that_peft_refuses_are_refused(config, said):
    with pytest.raises(InvalidLoraError, match=said):
        adapt(TREE, from_mapping(config))


def test_other_rows_of_tied_tables_cannot_stay_tied():
    config = {"trainable_token_indices": {"embed_tokens": [1], "lm_head": [2]}, "ensure_weight_tying": True}
    with pytest.raises(InvalidLoraError, match="tied but given different tokens"):
        adapt(TIED, from_mapping({**config, "target_modules": ["q_proj"]}))


@pytest.mark.parametrize(
    ("tree", "config", "names"),
    [
        pytest.param(TREE, {"modules_to_save": ["yers.0"], "target_modules": ["layers.0.v_proj"]},
                     {"layers.0.v_proj.lora_A.weight", "layers.0.v_proj.base_layer.weight", "layers.0.norm.weight"},
                     id="a copy is saved with the layers in it"),
        pytest.param(TREE, {"modules_to_save": ["odel", "norm"], "target_modules": ["lm_head"]},
                     {"layers.0.norm.original_module.weight", "layers.0.norm.modules_to_save.weight"},
                     id="a copy in a copy is saved as it stands"),
        pytest.param(TREE, {"bias": "lora_only", "target_modules": ["v_proj"], "modules_to_save": ["lm_head"]},
                     {"layers.1.v_proj.base_layer.bias"}, id="a bias lies on the base layer"),
    ],
)  # fmt: skip
def test_what_is_saved(tree, config, names):
    found = {tensor.name.removeprefix(f"{PREFIX}model.") for tensor in adapt(tree, from_mapping(config)).tensors}
    assert found >= names


@pytest.mark.parametrize(
    ("saved", "unread"),
    [
        pytest.param(["norm", "lm_head"], None, id="side by side"),
        pytest.param(["norm", "model.norm"], None, id="one module by two names"),
        pytest.param(["layers.0"], None, id="a layer whose modules are not adapted"),
        pytest.param(["ayers.0"], "layers.0.v_proj.lora_A.default.weight", id="what is adapted in a copy"),
        pytest.param(["layers.0", "norm"], "layers.0.norm.weight", id="a norm in a layer, both saved"),
    ],
)
def test_what_peft_saves_and_cannot_load_again(saved, unread):
    """The KeyError of PeftModel.from_pretrained."""
    notes = adapt(TREE, from_mapping({"modules_to_save": saved, "target_modules": ["v_proj"]})).notes
    (said,) = [note.message for note in notes if note.code == "loading_fails"] or [None]
    assert said is None if unread is None else f"base_model.model.model.{unread}, " in said


@pytest.mark.parametrize(
    ("ties", "saved", "said"),
    [
        pytest.param(["encoder.embed_tokens", "model.embed_tokens"], "embed_tokens", True, id="two take the same name"),
        pytest.param(
            ["a.embed_tokens", "model.embed_tokens", "z.embed_tokens"], "embed_tokens", True, id="in the middle"
        ),
        pytest.param(["model.embed_tokens"], "embed_tokens", False, id="the table alone is tied to another"),
        pytest.param(["encoder.embed_tokens", "lm_head"], "embed_tokens", False, id="others are tied to the table"),
    ],
)
def test_what_the_order_of_a_set_decides_is_said(ties, saved, said):
    """SeamlessM4TModel and MarianMTModel with PEFT 0.21.2: done under PYTHONHASHSEED=2, an AttributeError under 1."""
    declared = {f"{name}.weight": "lm_head.weight" for name in ties}
    tree = TIED._replace(tied={"model.embed_tokens.weight": "lm_head.weight"}, declared_ties=declared)
    config = {"modules_to_save": [saved], "ensure_weight_tying": True, "target_modules": ["q_proj"], "r": 1}
    assert saves_depend_on_order(TreeIndex(tree), from_mapping(config)) is said
    if said:
        assert adapt(tree, from_mapping(config)).trainable_parameters == 2 * Q + ROWS * WIDTH


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        pytest.param(["encoder.embed_tokens", "decoder.embed_tokens"], True, id="embed_tokens may be what is left"),
        pytest.param(["model.encoder.embed_tokens"], False, id="it is taken whichever goes first"),
        pytest.param([], False, id="one name"),
    ],
)
def test_what_the_order_of_targets_decides_is_said(targets, said):
    """BartForConditionalGeneration with PEFT 0.21.2: embeddings are saved along under one PYTHONHASHSEED, not another."""
    declared = {f"model.{part}.embed_tokens.weight": "model.embed_tokens.weight" for part in ("encoder", "decoder")}
    tree = TIED._replace(declared_ties=declared)
    config = {"target_modules": ["q_proj", "embed_tokens", *targets], "ensure_weight_tying": True}
    assert targets_depend_on_order(TreeIndex(tree), from_mapping(config)) is said
    assert not targets_depend_on_order(TreeIndex(tree), from_mapping(config | {"modules_to_save": ["embed_tokens"]}))
