"""The cache that transformers really fills, and the adapters that PEFT really holds, on tiny models."""

from __future__ import annotations

import pytest

from estimator.jobs.planning.serve import Serving, serve
from estimator.request.request import Request
from tests import real_models
from tests.real_models import tiny_model

pytestmark = pytest.mark.judges

SMALL = {**real_models.SMALL, "intermediate_size": 96, "num_hidden_layers": 3}
GROUPED = {**SMALL, "num_key_value_heads": 2}
GPT = {"n_embd": 48, "n_layer": 3, "n_head": 4, "vocab_size": 101, "n_positions": 64}
LATENT = {**SMALL, "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_nope_head_dim": 8,
          "qk_rope_head_dim": 4, "v_head_dim": 12, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
          "topk_group": 1, "moe_intermediate_size": 32, "first_k_dense_replace": 1}  # fmt: skip
FAMILIES = {
    "llama, grouped": ("LlamaForCausalLM", GROUPED),
    "qwen2": ("Qwen2ForCausalLM", GROUPED),
    "qwen3, a head of its own width": ("Qwen3ForCausalLM", {**GROUPED, "head_dim": 20}),
    "gemma2, windows": ("Gemma2ForCausalLM", {**GROUPED, "head_dim": 12, "sliding_window": 64}),
    "phi3, fused": ("Phi3ForCausalLM", {**GROUPED, "pad_token_id": 0}),
    "gpt2, Conv1D": ("GPT2LMHeadModel", GPT),
    "gptj": ("GPTJForCausalLM", {**GPT, "rotary_dim": 4}),
    "gpt-neox, fused": ("GPTNeoXForCausalLM", SMALL),
    "bloom, fused": ("BloomForCausalLM", {"hidden_size": 48, "n_layer": 3, "n_head": 4, "vocab_size": 101}),
    "falcon, one key": ("FalconForCausalLM", {**SMALL, "multi_query": True, "new_decoder_architecture": False}),
    "opt": ("OPTForCausalLM", {"hidden_size": 48, "ffn_dim": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
                               "vocab_size": 101, "word_embed_proj_dim": 48}),
    "mixtral": ("MixtralForCausalLM", {**GROUPED, "num_local_experts": 4}),
    "deepseek-v3, latent": ("DeepseekV3ForCausalLM", LATENT),
    "qwen3-next, linear layers": ("Qwen3NextForCausalLM", {
        **GROUPED, "num_hidden_layers": 4, "head_dim": 12, "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "layer_types": ["linear_attention"] * 3 + ["full_attention"]}),
    "bamba, scans": ("BambaForCausalLM", {
        **GROUPED, "mamba_d_state": 12, "mamba_expand": 2, "mamba_n_heads": 4, "mamba_d_head": 24, "mamba_n_groups": 2,
        "mamba_chunk_size": 32, "attn_layer_indices": [1]}),
    "jamba, scans": ("JambaForCausalLM", {
        **GROUPED, "mamba_d_state": 12, "mamba_dt_rank": 5, "attn_layer_period": 3, "attn_layer_offset": 1,
        "expert_layer_period": 8, "expert_layer_offset": 5, "num_experts": 1, "num_experts_per_tok": 1}),
}  # fmt: skip
TOKENS = 7


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request, tmp_path_factory):
    pytest.importorskip("peft")
    model = tiny_model(*FAMILIES[request.param]).eval()
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    return model, str(path)


def test_the_cache_of_a_real_forward_pass(saved) -> None:
    import torch

    model, path = saved
    with torch.no_grad():
        cache = model(torch.randint(0, 101, (1, TOKENS)), use_cache=True).past_key_values
    held = [getattr(layer, name, None) for layer in cache.layers for name in ("keys", "values")]
    elements = sum(tensor.numel() for tensor in held if torch.is_tensor(tensor))
    plan = serve(Request(model=path, r=2, targets="all-linear"), Serving())
    assert plan.cache.elements() * TOKENS == elements
    assert plan.peft.bytes_per_token == 4 * plan.cache.elements()  # saved in float32
    states, shifted = (
        sum(s.numel() for layer in cache.layers for s in getattr(layer, name, {}).values() if torch.is_tensor(s))
        for name in ("recurrent_states", "conv_states")
    )
    assert (plan.cache.state_elements, plan.cache.shifted_elements) == (states, shifted)


def test_adapters_side_by_side_in_peft(saved) -> None:
    import copy

    import peft

    model, path = saved
    config = peft.LoraConfig(r=2, target_modules="all-linear")
    adapted = peft.get_peft_model(copy.deepcopy(model), config)
    adapted.add_adapter("second", config)
    held = sum(p.nelement() * p.element_size() for name, p in adapted.named_parameters() if "lora_" in name)
    plan = serve(Request(model=path, r=2, targets="all-linear"), Serving(adapters=2))
    assert 2 * plan.peft.bytes_each == held
