"""Serving: vLLM's stacks by hand, the cache of published shapes, what can't be served."""

from __future__ import annotations

import pytest

from estimator.errors import UsageError
from estimator.jobs.planning.serve import Serving, serve
from estimator.request.request import Request

LLAMA = Request(model="llama-3.1-8b", r=16, targets="qv")


def part(plan, name: str):
    return next(component for component in plan.memory.components if component.name == name)


def test_vllm_wraps_every_layer_whatever_the_adapter_has() -> None:
    layer = (4096 + 4096) * 2 + (4096 + 1024) * 2 + (4096 + 14_336) * 3  # q, o; k, v; gate, up, down
    embeddings = 2 * (128_256 + 4096)
    wanted = 8 * 16 * (32 * layer + embeddings) * 2  # adapters, rank, in and out, bf16
    stacks = part(serve(LLAMA, Serving(adapters=8)), "LoRA stacks")
    assert (stacks.lower_bytes, stacks.upper_bytes, stacks.basis) == (wanted, wanted, "exact")


def test_peft_holds_what_each_adapter_has() -> None:
    assert serve(LLAMA, Serving(adapters=8)).peft.bytes_each == 4 * 6_815_744


@pytest.mark.parametrize(
    ("model", "elements"),
    [
        pytest.param("llama-3.1-8b", 2 * 32 * 8 * 128, id="grouped: 8 of 32 heads"),
        pytest.param("qwen2.5-0.5b", 2 * 24 * 2 * 64, id="grouped: 2 of 14 heads"),
        pytest.param("openai-community/gpt2", 2 * 12 * 768, id="all heads, one fused Conv1D"),
        pytest.param("microsoft/phi-3-mini-4k-instruct", 2 * 32 * 32 * 96, id="fused matrix"),
    ],
)
def test_elements_of_the_cache(model: str, elements: int) -> None:
    plan = serve(LLAMA._replace(model=model, targets="all-linear"), Serving())
    assert plan.cache.elements() == elements
    assert plan.bytes_per_token == 2 * elements


def test_a_latent_cache_is_kept_compressed_and_whole_on_each_gpu() -> None:
    request = Request(model="deepseek-ai/DeepSeek-V3", targets="qo")
    one, two = (serve(request, Serving(gpus=gpus)) for gpus in (1, 2))
    assert one.cache.elements() == 61 * (512 + 64)
    assert one.bytes_per_token == two.bytes_per_token == one.peft.bytes_per_token


REFUSED = [
    pytest.param({"lora": {"r": 64}, "r": None}, "rank", id="rank over the limit"),
    pytest.param({"rank_pattern": {"q_proj": 32}}, "rank", id="rank_pattern over the limit"),
    pytest.param({"dora": True}, "dora", id="DoRA"),
    pytest.param({"bias": "all"}, "bias", id="biases"),
    pytest.param({"lora_bias": True}, "lora_bias", id="a bias in lora_B"),
    pytest.param({"modules_to_save": "lm_head"}, "modules_to_save", id="a saved head"),
    pytest.param({"trainable_tokens": "0,1"}, "trainable_tokens", id="trained tokens"),
    pytest.param({"vocab_size": 128_257}, "embeddings", id="embeddings saved along"),
    pytest.param({"lora": {"init_lora_weights": "pissa"}}, "initialisation", id="PiSSA changes the base"),
    pytest.param({"model": "openai-community/gpt2", "targets": None}, "not_served", id="a class without LoRA"),
    pytest.param({"model": "qwen2.5-0.5b", "targets": "lm_head"}, "embedding_adapted", id="a head that is not wrapped"),
]


@pytest.mark.parametrize(("changes", "code"), REFUSED)
def test_what_vllm_does_not_serve_is_said(changes, code: str) -> None:
    assert code in {problem.code for problem in serve(LLAMA._replace(**changes), Serving()).refused}


def test_a_plain_adapter_is_served() -> None:
    assert serve(LLAMA, Serving()).refused == ()


def test_a_rank_that_vllm_does_not_take() -> None:
    with pytest.raises(UsageError, match="max_lora_rank 24"):
        serve(LLAMA, Serving(max_lora_rank=24))


def test_what_sparse_attention_chooses_by_is_packed_in_vllm() -> None:
    """DeepSeek V3.2: 576 of latents and 128 of the indexer's keys in each of 61 layers, these in 132 bytes of vLLM's."""
    plan = serve(Request(model="deepseek-ai/DeepSeek-V3.2", dtype="bf16", targets="qo"), Serving(gpus=8))
    assert plan.bytes_per_token == 61 * (2 * 576 + 132)
    assert plan.peft.bytes_per_token == 61 * 2 * (576 + 128)


def test_a_class_without_a_cache_says_so(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["OpenAIGPTLMHeadModel"], "model_type": "openai-gpt"}')
    plan = serve(Request(model=str(tmp_path), targets="all-linear"), Serving())
    assert (plan.bytes_per_token, plan.peft.cache_bytes) == (0, 0)
    assert "keeps_no_cache" in {note.code for note in plan.notes}


@pytest.mark.parametrize(
    ("model", "positions"),
    [
        pytest.param("openai/whisper-large-v2", 1500, id="sound, of which there is a table of positions"),
        pytest.param("google-t5/t5-small", 100, id="words, as many as the decoder's"),
    ],
)
def test_a_decoder_s_cache_has_its_encoder_s_positions_too(model: str, positions: int) -> None:
    served = serve(Request(model=model, offline=True, targets="all-linear"), Serving(sequence_length=100))
    each = 2 * served.cache.elements()
    assert part(served, "KV cache of these sequences").upper_bytes == (100 + positions) * each
    assert "encoder_cached" in {note.code for note in served.notes}


def test_components_sum_to_the_peak() -> None:
    served = serve(Request(model="llama-3.1-8b", offline=True), Serving(batch_size=4))
    for memory in (served.memory, served.peft.memory):
        assert sum(part.upper_bytes for part in memory.components) == memory.device.upper


def test_largest_fits_and_one_more_does_not() -> None:
    gpu = 48 * 10**9
    plan = serve(LLAMA, Serving(batch_size=2), gpu)
    batch = plan.largest["batch_size"]
    assert serve(LLAMA, Serving(batch_size=batch), gpu).fits == "yes"
    assert serve(LLAMA, Serving(batch_size=batch + 1), gpu).fits != "yes"


def test_two_gpus_halve_the_cache_and_the_weights() -> None:
    one, two = (serve(LLAMA, Serving(gpus=gpus)) for gpus in (1, 2))
    assert two.bytes_per_token * 2 == one.bytes_per_token
    assert part(two, "base weights").lower_bytes * 2 == part(one, "base weights").lower_bytes
    stacks = part(two, "LoRA stacks")
    assert part(one, "LoRA stacks").lower_bytes // 2 <= stacks.lower_bytes < stacks.upper_bytes


@pytest.mark.parametrize(
    ("model", "gpus", "elements"),
    [
        pytest.param("qwen2.5-0.5b", 7, 2 * 24 * 64, id="two heads for seven GPUs: each has one whole"),
        pytest.param("llama-3.1-8b", 16, 2 * 32 * 128, id="eight heads for sixteen"),
        pytest.param("tiiuae/falcon-7b", 71, 2 * 32 * 64, id="one head"),
        pytest.param("google/gemma-4-26B-A4B", 4, 25 * 2 * 2 * 256 + 5 * 2 * 512, id="eight heads, and two of others"),
    ],
)
def test_gpus_share_heads_and_no_parts_of_them(model: str, gpus: int, elements: int) -> None:
    plan = serve(Request(model=model, targets="q" if "falcon" not in model else "query_key_value"), Serving(gpus=gpus))
    assert plan.bytes_per_token == 2 * elements
    assert "gpus" not in {problem.code for problem in plan.refused}


def test_heads_that_gpus_cannot_share_are_refused() -> None:
    assert [problem.code for problem in serve(LLAMA, Serving(gpus=3)).refused] == ["gpus"]


def test_windows_keep_what_their_layers_have() -> None:
    """Gemma 4: 25 layers of 8 heads keep 1,024 tokens, 5 layers of 2 wider heads keep all."""
    request = Request(model="google/gemma-4-26B-A4B", targets="q")
    plan = serve(request, Serving(batch_size=3, sequence_length=8192), 80 * 10**9)
    windowed, whole = 2 * 25 * 2 * 8 * 256, 2 * 5 * 2 * 2 * 512
    cache = part(plan, "KV cache of these sequences")
    assert cache.lower_bytes == 3 * (1024 * windowed + 8192 * whole)
    assert cache.upper_bytes == 3 * 8192 * (windowed + whole)


def test_tokens_left_honour_windows_at_most() -> None:
    request = Request(model="google/gemma-4-26B-A4B", targets="q")
    one, many = (serve(request, Serving(batch_size=n, sequence_length=8192), 141 * 10**9) for n in (1, 20))
    assert many.fits == "yes"
    assert many.tokens[0] >= 20 * 8192
    assert one.tokens[1] > 3 * one.tokens[0]


def test_without_a_known_cache_nothing_is_sure() -> None:
    plan = serve(Request(model="google-bert/bert-base-uncased", targets="qv"), Serving(), 80 * 10**9)
    assert plan.fits == "maybe"
    assert set(plan.largest.values()) == {None}


def test_float32_is_served_in_16_bits_unless_it_is_asked_for() -> None:
    request = Request(model="openai-community/gpt2", targets="qv", dtype="fp32", base_precision="fp32")
    whole = serve(request, Serving())
    assert part(whole, "base weights").lower_bytes == 4 * 124_439_808
    assert whole.bytes_per_token == 4 * 2 * 12 * 768
