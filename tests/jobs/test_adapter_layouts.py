"""Adapters whose file is of another layout than their config implies today, from headers that PEFT wrote."""

from __future__ import annotations

import json

import pytest

from estimator.jobs.explain_adapter import explain_adapter
from estimator.request.request import Request
from tests.hub.models import safetensors

WIDTH, INNER, ROWS, RANK = 64, 32, 96, 4
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
         "vocab_size": ROWS, "head_dim": 16, "dtype": "float32"}  # fmt: skip
BASES = {
    "qwen3_moe": {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "intermediate_size": 96,
                  "num_experts": 2, "moe_intermediate_size": INNER, **SIZES},
    "mixtral": {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "intermediate_size": INNER,
                "num_local_experts": 2, **SIZES},
    "llava": {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava",
              "text_config": {"model_type": "llama", "intermediate_size": INNER, **SIZES},
              "vision_config": {"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
                                "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 16, "patch_size": 8}},
    "llama": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "intermediate_size": INNER,
              "tie_word_embeddings": True, **SIZES},
}  # fmt: skip
LAYER = "base_model.model.model.layers.0."
PROJECTIONS = {"q_proj": (WIDTH, WIDTH), "v_proj": (WIDTH, WIDTH // 2)}


def lora(prefix, sizes):
    """sizes: module -> in and out features."""
    halves = ((f"{prefix}{name}.lora_", into, out) for name, (into, out) in sizes.items())
    return {
        name: shape
        for start, into, out in halves
        for name, shape in ((f"{start}A.weight", (RANK, into)), (f"{start}B.weight", (out, RANK)))
    }


def experts(block, gate, up, down):
    into, back = (WIDTH, INNER), (INNER, WIDTH)
    each = {f"{expert}.{name}": size for expert in "01" for name, size in ((gate, into), (up, into), (down, back))}
    return lora(f"{LAYER}{block}.experts.", each) | lora(f"{LAYER}{block}.", {"gate": (WIDTH, 2)})


def write(path, tensors):
    """The file of these float32 tensors, without their values; its size comes back."""
    return path.write_bytes(safetensors({name: ("F32", shape) for name, shape in sorted(tensors.items())}))


LLAVA = "language_model.model.layers.0.self_attn."
ATTENTION = lora(LAYER + "self_attn.", PROJECTIONS)
QWEN, MIXTRAL = ("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2")
TABLE, HEAD = "base_model.model.model.embed_tokens.token_adapter.", "base_model.model.lm_head.token_adapter."
TOKENS = {  # as PEFT 0.21.2 saved two trained tokens behind the base's rows
    f"{at}{part}": (rows, WIDTH)
    for at in (TABLE, HEAD)
    for part, rows in (("base_layer.weight", ROWS + 3), ("trainable_tokens_delta", 2))
}
AT = "base_model.model.model.embed_tokens."
ADAPTED_TABLE = {  # as PEFT 0.21.2 saved it
    f"{AT}base_layer.weight": (ROWS + 3, WIDTH),
    f"{AT}lora_embedding_A": (RANK, ROWS + 3),
    f"{AT}lora_embedding_B": (WIDTH, RANK),
}


@pytest.mark.parametrize(
    ("base", "config", "tensors", "causes"),
    [
        pytest.param(
            "qwen3_moe", {"target_modules": [*PROJECTIONS, *QWEN, "gate"]}, ATTENTION | experts("mlp", *QWEN),
            ["experts_one_by_one"], id="experts under their own names",
        ),
        pytest.param(
            "mixtral", {"target_modules": [*PROJECTIONS, *MIXTRAL, "gate"]},
            ATTENTION | experts("block_sparse_moe", *MIXTRAL), ["experts_one_by_one"], id="the block was renamed",
        ),
        pytest.param(
            "mixtral", {"target_modules": ["w1"]},
            {name: shape for name, shape in experts("block_sparse_moe", *MIXTRAL).items() if ".w1." in name},
            ["experts_one_by_one"], id="a name that is fused with another is refused today",
        ),
        pytest.param(
            "llama", {"target_modules": [*PROJECTIONS], "trainable_token_indices": [ROWS, ROWS + 1]},
            ATTENTION | TOKENS, ["resized_vocabulary"], id="trained tokens behind the base's rows",
        ),
        pytest.param(
            "llama", {"target_modules": [*PROJECTIONS, "embed_tokens"]}, ATTENTION | ADAPTED_TABLE,
            ["resized_vocabulary"], id="an adapted embedding of more rows",
        ),
        pytest.param(
            "llava", {"target_modules": [LLAVA + name for name in PROJECTIONS]},
            lora(f"base_model.model.{LLAVA}", PROJECTIONS), ["converted_names"], id="the towers were not in one model",
        ),
        pytest.param(
            "llava", {"target_modules": [LLAVA + name for name in PROJECTIONS]}, lora(LLAVA, PROJECTIONS),
            ["converted_names"], id="nor had the names a prefix",
        ),
        pytest.param(
            "llava", {"target_modules": [LLAVA + name for name in PROJECTIONS]},
            lora(f"base_model.model.base_model.model.{LLAVA}", PROJECTIONS), ["doubled_prefix", "older_names"],
            id="PEFT converts none that has the prefix twice",
        ),
        pytest.param(
            "llama", {"target_modules": [*PROJECTIONS]}, ATTENTION, [], id="as today",
        ),
    ],
)  # fmt: skip
def test_a_file_in_another_layout_is_explained(base, config, tensors, causes, tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(BASES[base]))
    (tmp_path / "adapter").mkdir()
    said = {"peft_type": "LORA", "r": RANK, "base_model_name_or_path": str(tmp_path / "base"), **config}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(said))
    size = write(tmp_path / "adapter" / "adapter_model.safetensors", tensors)
    expected = ("explained" if causes else "exact", size, causes)
    assert explained(tmp_path / "adapter") == expected
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize {size}\n"
    (tmp_path / "adapter" / "adapter_model.safetensors").write_text(pointer)
    if (
        not {"older_names", "converted_names"} & {*causes} and not (TOKENS | ADAPTED_TABLE).keys() & tensors.keys()
    ):  # a size tells neither names nor rows
        assert explained(tmp_path / "adapter") == expected


def explained(folder):
    found = explain_adapter(str(folder), Request(offline=True))
    return found.status, found.actual_bytes, [cause.code for cause in found.causes]


@pytest.mark.parametrize("tokens", [5, {"embed_tokens": None}, {"embed_tokens": 5}])
def test_rows_of_tokens_that_are_no_list_are_refused_today(tokens, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(BASES["llama"]))
    said = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path), "trainable_token_indices": tokens}
    (tmp_path / "adapter_config.json").write_text(json.dumps(said))
    size = write(tmp_path / "adapter_model.safetensors", ATTENTION | TOKENS)
    assert explained(tmp_path) == ("unexplained", size, ["refused_today"])
