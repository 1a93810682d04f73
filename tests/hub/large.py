"""Repositories as large as the largest on the Hub: real names and shapes, no data."""

from __future__ import annotations

from tests.hub.models import Repo, Shapes, config_file, llama, sharded

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
LLAMA_70B = {
    **LLAMA_8B,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}
DEEPSEEK_V3 = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_nextn_predict_layers": 1,
    "first_k_dense_replace": 3,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
    "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
}


def _fp8(name: str, rows: int, columns: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    scales = (-(-rows // 128), -(-columns // 128))
    return {f"{name}.weight": ("F8_E4M3", (rows, columns)), f"{name}.weight_scale_inv": ("F32", scales)}


def _mlp(name: str, hidden: int, width: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        **_fp8(f"{name}.gate_proj", width, hidden),
        **_fp8(f"{name}.up_proj", width, hidden),
        **_fp8(f"{name}.down_proj", hidden, width),
    }


def deepseek_v3() -> Shapes:
    """The tensors of DeepSeek-V3, its extra layer for multi-token prediction included: 91,991."""
    hidden, tensors = 7168, {"model.embed_tokens.weight": ("BF16", (129280, 7168))}
    for layer in range(62):
        name = f"model.layers.{layer}"
        tensors |= _fp8(f"{name}.self_attn.q_a_proj", 1536, hidden)
        tensors |= _fp8(f"{name}.self_attn.q_b_proj", 24576, 1536)
        tensors |= _fp8(f"{name}.self_attn.kv_a_proj_with_mqa", 576, hidden)
        tensors |= _fp8(f"{name}.self_attn.kv_b_proj", 32768, 512)
        tensors |= _fp8(f"{name}.self_attn.o_proj", hidden, 16384)
        norms = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
        norms |= {"self_attn.q_a_layernorm": 1536, "self_attn.kv_a_layernorm": 512}
        tensors |= {f"{name}.{norm}.weight": ("BF16", (width,)) for norm, width in norms.items()}
        if layer < 3:
            tensors |= _mlp(f"{name}.mlp", hidden, 18432)
            continue
        tensors |= {f"{name}.mlp.gate.weight": ("BF16", (256, hidden))}
        tensors |= {f"{name}.mlp.gate.e_score_correction_bias": ("F32", (256,))}
        for expert in range(256):
            tensors |= _mlp(f"{name}.mlp.experts.{expert}", hidden, 2048)
        tensors |= _mlp(f"{name}.mlp.shared_experts", hidden, 2048)
    extra = {"embed_tokens.weight": (129280, hidden), "enorm.weight": (hidden,), "hnorm.weight": (hidden,)}
    extra |= {"eh_proj.weight": (hidden, 2 * hidden), "shared_head.head.weight": (129280, hidden)}
    extra |= {"shared_head.norm.weight": (hidden,)}
    tensors |= {f"model.layers.61.{tail}": ("BF16", shape) for tail, shape in extra.items()}
    return tensors | {"model.norm.weight": ("BF16", (hidden,)), "lm_head.weight": ("BF16", (129280, hidden))}


def large_repos() -> list[Repo]:
    """An 8B in 4 shards, a 70B in 30 and DeepSeek-V3 in 163, each with and without the metadata endpoint."""
    made = [
        ("org/llama-8b", LLAMA_8B, llama(32, 4096, 14336, 128256, 1024), 4),
        ("org/llama-70b", LLAMA_70B, llama(80, 8192, 28672, 128256, 1024), 30),
        ("org/deepseek-v3", DEEPSEEK_V3, deepseek_v3(), 163),
    ]
    repos = []
    for id_, config, tensors, shards in made:
        files = {"config.json": config_file(config), **sharded(tensors, shards)}
        repos += [Repo(id_, files), Repo(id_ + "-ranged", files, endpoint=False)]
    return repos
