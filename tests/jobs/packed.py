"""A tiny Llama whose Linears are packed: its sizes, and its folder."""

from __future__ import annotations

import json
from math import prod

from tests.hub.models import safetensors

WIDTH, INNER, KEYS, ROWS, RANK = 128, 256, 64, 320, 8
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": INNER,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": ROWS,
    "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
LAYER = "model.layers.0."
LINEARS = {
    "self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (KEYS, WIDTH), "self_attn.v_proj": (KEYS, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH), "mlp.gate_proj": (INNER, WIDTH), "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}  # fmt: skip
PLAIN = {
    "model.embed_tokens.weight": (ROWS, WIDTH), "model.norm.weight": (WIDTH,), "lm_head.weight": (ROWS, WIDTH),
    LAYER + "input_layernorm.weight": (WIDTH,), LAYER + "post_attention_layernorm.weight": (WIDTH,),
}  # fmt: skip
PARAMETERS = sum(map(prod, (*PLAIN.values(), *LINEARS.values())))
ADAPTER = RANK * (WIDTH + WIDTH + INNER + WIDTH)
AS_PLAIN = 2 * PARAMETERS + 2 * 4 * 16  # bytes in bfloat16, and two buffers of rotary frequencies


def bnb(out, into):
    return {".weight": ("U8", out * into // 2, 1), ".weight.absmax": ("F32", out * into // 64),
            ".weight.quant_map": ("F32", 16), ".weight.quant_state.bitsandbytes__nf4": ("U8", 80)}  # fmt: skip


BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


def write(folder, fields, pack, config, linears=LINEARS, more=None):
    tensors = {**{name: ("BF16", *shape) for name, shape in PLAIN.items()}, **(more or {})}
    for name, (out, into) in linears.items():
        tensors |= {f"{LAYER}{name}{part}": kind for part, kind in pack(out, into).items()}
    stored = safetensors({name: (dtype, tuple(shape)) for name, (dtype, *shape) in tensors.items()})
    (folder / "model.safetensors").write_bytes(stored)
    said = {} if fields is None else {"quantization_config": fields}
    (folder / "config.json").write_text(json.dumps({**config, **said}))
