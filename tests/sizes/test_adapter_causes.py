"""Why a real adapter file differs: one row a cause, headers as published files have them."""

from __future__ import annotations

import re

import pytest

from estimator.sizes.adapter_causes import Part
from estimator.sizes.adapter_differences import causes_of

LAYER = "base_model.model.model.layers.{}.self_attn.{}.lora_{}.weight"
HEAD = "base_model.model.score.weight"
EMBEDDING = "base_model.model.model.embed_tokens.weight"
ALPHA = "base_model.model.model.layers.0.self_attn.q_proj.alpha"
GATE, NORM = "base_model.model.model.layers.0.mlp.gate_proj.weight", "base_model.model.model.norm.weight"
HEAD_BIAS = "base_model.model.score.bias"
Q_B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
CONV = "base_model.model.vision.patch_embedding.lora_"
TOKENS_ROWS = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
MAGNITUDE = "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"
TOKENS = "base_model.model.model.embed_tokens.lora_embedding_"
TOKENS_OWN = "base_model.model.model.embed_tokens.base_layer.weight"
BIAS = "base_model.model.model.layers.0.self_attn.q_proj.bias"

BIASES = {BIAS.replace("0", layer).replace("bias", "base_layer.bias"): Part("F32", (32,)) for layer in "01"}
ADAPTED_TOKENS = {
    TOKENS + "A": Part("F32", (8, 300)), TOKENS + "B": Part("F32", (64, 8)), TOKENS_OWN: Part("F32", (300, 64)),
}  # fmt: skip


def lora(dtype="F32", r=8, layers=(0, 1), names=("q_proj", "v_proj"), template=LAYER):
    return {
        template.format(layer, name, matrix): Part(dtype, (r, 64) if matrix == "A" else (32, r))
        for layer in layers
        for name in names
        for matrix in "AB"
    }


IMPLIED = lora()
GROWN = 4 * 300 * 64


def renamed(parts, change):
    return {change(name): part for name, part in parts.items()}


@pytest.mark.parametrize(
    ("implied", "real", "causes"),
    [
        pytest.param(IMPLIED, IMPLIED, [], id="the same"),
        pytest.param(IMPLIED, {}, [("no_tensors", 0, -4 * 4 * 8 * 96)], id="an empty file"),
        pytest.param(IMPLIED, lora("BF16"), [("sixteen_bit", 8, -2 * 4 * 8 * 96)], id="bfloat16"),
        pytest.param(
            IMPLIED,
            renamed(IMPLIED, lambda name: "base_model.model." + name),
            [("doubled_prefix", 8, 0)],
            id="a PEFT model in a PEFT model",
        ),
        pytest.param(
            IMPLIED,
            renamed(IMPLIED, lambda name: name.removeprefix("base_model.model.")),
            [("no_prefix", 8, 0)],
            id="no prefix",
        ),
        pytest.param(
            IMPLIED,
            renamed(IMPLIED, lambda name: name.replace(".weight", ".default.weight")),
            [("older_peft_names", 8, 0)],
            id="the adapter's own name inside",
        ),
        pytest.param(
            {**IMPLIED, HEAD: Part("F32", (2, 64)), TOKENS + "A": Part("F32", (8, 300))},
            {
                **renamed(IMPLIED, lambda name: name.replace(".weight", ".mine.weight")),
                HEAD.replace(".weight", ".modules_to_save.mine.weight"): Part("F32", (2, 64)),
                TOKENS + "A.mine": Part("F32", (8, 300)),
            },
            [("adapter_names", 10, 0)],
            id="another name of the adapter's",
        ),
        pytest.param(
            {**IMPLIED, MAGNITUDE: Part("F32", (32,))},
            {
                **renamed(IMPLIED, lambda name: name.replace(".weight", ".default.weight")),
                MAGNITUDE + ".default.weight": Part("F32", (32,)),
            },
            [("older_peft_names", 9, 0), ("magnitude_names", 1, 0)],
            id="DoRA's magnitude as a state dict has it",
        ),
        pytest.param(
            {**IMPLIED, MAGNITUDE: Part("F32", (32,))},
            {**IMPLIED, MAGNITUDE + ".weight": Part("F32", (32,))},
            [("magnitude_names", 1, 0)],
            id="DoRA's magnitude as a weight",
        ),
        pytest.param(
            {**IMPLIED, TOKENS + "A": Part("F32", (8, 300)), TOKENS_OWN: Part("F32", (300, 64))},
            {**IMPLIED, TOKENS + "A": Part("F32", (8, 300))},
            [("embeddings_left_out", 1, -GROWN)],
            id="save_embedding_layers=False",
        ),
        pytest.param(
            IMPLIED,
            lora(template=LAYER.replace("self_attn", "attention.attention")),
            [("older_names", 8, 0)],
            id="modules of an older transformers",
        ),
        pytest.param(
            IMPLIED,
            renamed(
                lora(template=LAYER.replace("self_attn", "attention.attention")), lambda n: "base_model.model." + n
            ),
            [("doubled_prefix", 8, 0), ("older_names", 8, 0)],
            id="the prefix twice before older names",
        ),
        pytest.param(
            lora(names=("q_proj", "k_proj")),
            lora(names=("query", "key"), template="base_model.model.vit.encoder.layer.{}.attention.{}.lora_{}.weight"),
            [("older_names", 8, 0)],
            id="two modules of one shape, both renamed",
        ),
        pytest.param(
            {**IMPLIED, GATE: Part("F32", (32, 64)), NORM: Part("F32", (64,))},
            {**IMPLIED, GATE: Part("F32", (33, 64)), NORM: Part("F32", (65,))},
            [("other_shape", 1, 4 * 64), ("other_shape", 1, 4)],
            id="rows of a layer and of a norm are no labels",
        ),
        pytest.param(
            {**IMPLIED, TOKENS_OWN: Part("F32", (300, 64))},
            {**IMPLIED, TOKENS_OWN: Part("F32", (301, 64))},
            [("resized_vocabulary", 1, 4 * 64)],
            id="nor are rows of an adapted embedding",
        ),
        pytest.param(
            IMPLIED,
            {**IMPLIED, EMBEDDING.replace("weight", "token_adapter.base_layer.weight"): Part("F32", (300, 64))},
            [("embeddings_saved", 1, GROWN)],
            id="the embedding of trained tokens saved along",
        ),
        pytest.param(
            {**IMPLIED, HEAD: Part("F32", (2, 64))},
            {**IMPLIED, HEAD: Part("F32", (5, 64))},
            [("number_of_labels", 1, 4 * 3 * 64)],
            id="five labels",
        ),
        pytest.param(
            IMPLIED,
            {**IMPLIED, EMBEDDING: Part("F32", (300, 64))},
            [("embeddings_saved", 1, GROWN)],
            id="the embedding saved along",
        ),
        pytest.param(
            IMPLIED,
            {**IMPLIED, EMBEDDING: Part("F32", (301, 64))},
            [("embeddings_saved", 1, GROWN + 4 * 64), ("resized_vocabulary", 1, 0)],
            id="the embedding saved along with one more token",
        ),
        pytest.param(
            IMPLIED,
            renamed(IMPLIED, lambda name: name.replace("model.layers", "_orig_mod.model.layers")),
            [("wrapper_names", 8, 0)],
            id="what torch.compile wrapped",
        ),
        pytest.param(
            IMPLIED, renamed(IMPLIED, lambda name: "module." + name), [("wrapper_names", 8, 0)], id="what DDP wrapped"
        ),
        pytest.param(
            IMPLIED,
            dict.fromkeys(IMPLIED, Part("F32", (0,))),
            [("empty_tensors", 8, -4 * 4 * 8 * 96)],
            id="not gathered under ZeRO-3",
        ),
        pytest.param(
            IMPLIED,
            {**IMPLIED, "step": Part("F32", (1,)), ALPHA: Part("F32", ())},
            [("extra_tensors", 2, 8)],
            id="tensors of no module",
        ),
        pytest.param(
            {**IMPLIED, EMBEDDING: Part("F32", (300, 64))},
            {**IMPLIED, EMBEDDING: Part("F32", (301, 64))},
            [("resized_vocabulary", 1, 4 * 64)],
            id="one more token",
        ),
        pytest.param(
            {**IMPLIED, BIAS: Part("F32", (32,))}, IMPLIED, [("older_peft_bias", 1, -128)], id="biases not saved"
        ),
        pytest.param(
            {**IMPLIED, **BIASES},
            {**lora(layers=(0,)), **dict(list(BIASES.items())[:1])},
            [("missing_layers", 5, -2 * 4 * 8 * 96 - 128)],
            id="a layer is missing, its bias with it",
        ),
        pytest.param(IMPLIED, lora(layers=(0,)), [("missing_layers", 4, -2 * 4 * 8 * 96)], id="a layer is missing"),
        pytest.param(
            IMPLIED,
            {name: part for name, part in IMPLIED.items() if "1.self_attn.q_proj" not in name},
            [("missing_modules", 2, -4 * 8 * 96)],
            id="part of a layer is missing",
        ),
        pytest.param(
            IMPLIED,
            {**IMPLIED, MAGNITUDE: Part("F32", (32,))},
            [("dora_not_said", 1, 128)],
            id="DoRA that the config lost",
        ),
        pytest.param(
            lora(names=("v_proj",)),
            {**IMPLIED, MAGNITUDE: Part("F32", (32,))},
            [("extra_modules", 5, 2 * 4 * 8 * 96 + 128)],
            id="DoRA of one more module",
        ),
        pytest.param(
            IMPLIED,
            {**IMPLIED, **ADAPTED_TOKENS},
            [("extra_modules", 3, 4 * (8 * 300 + 64 * 8 + 300 * 64))],
            id="an embedding that is adapted, and its own rows",
        ),
        pytest.param(
            IMPLIED,
            {**IMPLIED, Q_B.replace("weight", "bias"): Part("F32", (32,))},
            [("lora_bias_not_said", 1, 128)],
            id="LoRA's biases that the config lost",
        ),
        pytest.param(
            IMPLIED,
            {**IMPLIED, BIAS: Part("F32", (32,))},
            [("bias_not_said", 1, 128)],
            id="biases that the config lost",
        ),
        pytest.param(
            IMPLIED,
            {**IMPLIED, TOKENS_ROWS: Part("F32", (3, 64))},
            [("tokens_not_said", 1, 3 * 4 * 64)],
            id="trained tokens that the config lost",
        ),
        pytest.param(
            IMPLIED,
            {**IMPLIED, HEAD: Part("F32", (2, 64)), HEAD_BIAS: Part("F32", (2,))},
            [("saved_modules", 2, 4 * (2 * 64 + 2))],
            id="a head and its bias are a module",
        ),
        pytest.param(
            IMPLIED,
            lora(names=("q_proj", "v_proj", "o_proj")),
            [("extra_modules", 4, 2 * 4 * 8 * 96)],
            id="one more module a layer",
        ),
        pytest.param(IMPLIED, lora(r=16), [("other_rank", 8, 4 * 4 * 8 * 96)], id="another rank"),
        pytest.param(
            {CONV + "A.weight": Part("F32", (8, 3, 4, 4)), CONV + "B.weight": Part("F32", (64, 8, 1, 1))},
            {CONV + "A.weight": Part("F32", (2, 3, 4, 4)), CONV + "B.weight": Part("F32", (64, 2, 1, 1))},
            [("other_rank", 2, -4 * 6 * (48 + 64))],
            id="another rank of a convolution",
        ),
        pytest.param(
            {Q_B: Part("F32", (64, 8))},
            {Q_B: Part("F32", (32, 8))},
            [("other_shape", 1, -4 * 32 * 8)],
            id="the rank of another base",
        ),
        pytest.param(
            {Q_B: Part("F32", (64, 8))}, {Q_B: Part("F32", (8, 64))}, [("other_shape", 1, 0)], id="transposed"
        ),
        pytest.param(
            {TOKENS_ROWS: Part("F32", (3, 64))},
            {TOKENS_ROWS: Part("F32", (4, 64))},
            [("other_tokens", 1, 256)],
            id="tokens are no labels",
        ),
        pytest.param(
            {**IMPLIED, HEAD: Part("F32", (2, 64)), HEAD_BIAS: Part("F32", (2,))},
            IMPLIED,
            [("missing_modules", 2, -4 * (2 * 64 + 2))],
            id="the bias of a head that is missing",
        ),
        pytest.param(
            IMPLIED,
            {**IMPLIED, **lora(template="base_model.model.model.layers.{}.mlp.experts.3.{}.lora_{}.weight")},
            [("experts_one_by_one", 8, 4 * 4 * 8 * 96)],
            id="experts one by one",
        ),
        pytest.param(
            IMPLIED,
            {**renamed(lora("F16"), lambda n: "base_model.model." + n), EMBEDDING: Part("F16", (300, 64))},
            [
                ("doubled_prefix", 8, 0),
                ("sixteen_bit", 8, -2 * 4 * 8 * 96),
                ("embeddings_saved", 1, GROWN // 2),
            ],
            id="three at once",
        ),
    ],
)
def test_causes(implied, real, causes):
    found = causes_of(implied, real, {EMBEDDING: Part("BF16", (300, 64))})
    assert [(cause.code, cause.tensors, cause.bytes) for cause in found] == causes
    implied_bytes, real_bytes = (sum(part.bytes for part in parts.values()) for parts in (implied, real))
    assert implied_bytes + sum(cause.bytes for cause in found) == real_bytes


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        pytest.param("2.self_attn.q", "file: model.layers.2.self_attn.q_proj.lora_A", id="one by its number"),
        pytest.param("[013].self_attn.q", "file: model.layers.0-1,3.self_attn.q_proj.lora_A", id="several folded"),
        pytest.param("[023].*", "Nothing of layers 0,2-3 is in the file, and all of 1:", id="whole layers"),
    ],
)
def test_what_is_missing_is_named(lost, said):
    implied = lora(layers=(0, 1, 2, 3))
    (cause,) = causes_of(implied, {n: p for n, p in implied.items() if not re.search(rf"layers\.{lost}", n)}, {})
    assert said in cause.message


def test_what_the_config_says_of_biases_is_not_guessed():
    (cause,) = causes_of(IMPLIED, {**IMPLIED, BIAS: Part("F32", (32,))}, {})  # as bias=lora_only would not save it
    assert "which adapter_config.json's bias does not save: model.layers.0.self_attn.q_proj.bias." in cause.message


def test_older_names_are_said_to_load_nothing() -> None:
    older = lora(template=LAYER.replace("self_attn", "attention.attention"))
    (cause,) = causes_of(IMPLIED, older, {})
    assert cause.message.endswith("on which PEFT loads none of them.")
