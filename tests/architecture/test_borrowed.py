"""Model types whose configs another type's class is built of. Totals: transformers 5.24.0 and PEFT 0.21.2 on these."""

from __future__ import annotations

import json
import struct

import pytest

from estimator import estimate

WIDTHS = {"vocab_size": 100, "hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 6}
EXAONE = {**WIDTHS, "num_key_value_heads": 2, "num_layers": 3, "head_dim": 8, "activation_function": "silu"}
EXPERTS = {**WIDTHS, "num_hidden_layers": 3, "num_experts": 4, "num_experts_per_tok": 2, "num_shared_experts": 1}
EXPERTS |= {"moe_intermediate_size": 24}
LATENT = {**EXPERTS, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "v_head_dim": 12}
ROWS = [
    pytest.param("exaone", EXAONE, 56016, 2304, id="fields of other names"),
    pytest.param(
        "internlm3", {**WIDTHS, "num_hidden_layers": 2, "qkv_bias": True, "bias": True}, 227888, 13056, id="biases"
    ),
    pytest.param("iquestcoder", {**WIDTHS, "num_hidden_layers": 2}, 372336, 13056, id="other defaults"),
    pytest.param("sarvam_mla", LATENT, 221760, 11520, id="no low rank of queries"),
    pytest.param("sarvam_moe", {**EXPERTS, "use_qkv_bias": True}, 241488, 10368, id="a default that the class lacks"),
]


@pytest.mark.parametrize(("model_type", "fields", "parameters", "trained"), ROWS)
def test_config_json_alone_gives_what_transformers_builds(model_type, fields, parameters, trained, tmp_path):
    named = {"architectures": ["OfItsOwnForCausalLM"]}  # in the repository's code, which is not run
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, **named, **fields}))
    answer = estimate(tmp_path, targets=["o_proj", "q_proj"], r=4)
    assert (answer["base"]["parameters"], answer["adapter"]["parameters"]) == (parameters, trained)
    assert answer["model"]["basis"] == "exact"
    newer = model_type in ("exaone", "sarvam_mla", "sarvam_moe")
    assert answer["rules"]["transformers"] == ("5.24.0" if newer else "5.23.0")


def test_weights_are_renamed_by_the_model_type(tmp_path):
    """EXAONE's own names; its class is Llama's."""
    config = {"model_type": "exaone", "architectures": ["ExaoneForCausalLM"], **EXAONE}
    (tmp_path / "config.json").write_text(json.dumps(config))
    block = {
        "attn.attention.q_proj": [48, 48], "attn.attention.k_proj": [16, 48], "attn.attention.v_proj": [16, 48],
        "attn.attention.out_proj": [48, 48], "mlp.c_fc_0": [64, 48], "mlp.c_fc_1": [64, 48], "mlp.c_proj": [48, 64],
        "ln_1": [48], "ln_2": [48],
    }  # fmt: skip
    shapes = {f"transformer.h.{at}.{name}.weight": shape for at in range(3) for name, shape in block.items()}
    shapes |= {"transformer.wte.weight": [100, 48], "transformer.ln_f.weight": [48], "lm_head.weight": [100, 48]}
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    answer = estimate(tmp_path, targets=["o_proj", "gate_proj"], r=4)
    assert (answer["adapter"]["parameters"], answer["model"]["basis"]) == (3 * 4 * (48 + 48 + 48 + 64), "exact")
    assert not {"unused_tensors", "made_anew"} & {note["code"] for note in answer["notes"]}
