"""PEFT judges on bases that bitsandbytes has quantised: which variants its layers hear, and in which dtype they adapt."""

from __future__ import annotations

import copy

import pytest

pytestmark = pytest.mark.judges

NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
HOW = {
    "nf4": NF4,
    "nf4 as bfloat16": {**NF4, "bnb_4bit_quant_storage": "bfloat16"},
    "nf4 in float16": {**NF4, "bnb_4bit_compute_dtype": "float16"},
    "int8": {"load_in_8bit": True},
}
OPTIONS = {"quant_storage": "bnb_4bit_quant_storage", "compute_dtype": "bnb_4bit_compute_dtype"}
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "head_dim": 16}
NAMES = {"target_modules": ["q_proj", "down_proj"], "r": 4}
CONFIGS = [
    pytest.param({}, id="LoRA"),
    pytest.param({"use_dora": True}, id="DoRA"),
    pytest.param({"use_dora": True, "target_modules": ["q_proj", "lm_head", "embed_tokens"]}, id="DoRA, some unquantised"),
    pytest.param({"velora_config": {"num_groups": 4}}, id="VeLoRA is refused"),
    pytest.param({"alora_invocation_tokens": [1], "use_dora": True}, id="aLoRA goes before DoRA"),
    pytest.param({"alora_invocation_tokens": [], "use_dora": True}, id="no tokens are aLoRA as well"),
    pytest.param({"use_bdlora": {"target_modules_bd_a": ["q_proj"], "target_modules_bd_b": ["down"], "nblocks": 2}}, id="BdLoRA is passed over"),
    pytest.param({"kasa_config": {}, "use_dora": True}, id="KaSA is passed over"),
    pytest.param({"monteclora_config": {}}, id="MonteCLoRA is passed over"),
    pytest.param({"init_lora_weights": "mica"}, id="MiCA wants floats"),
    pytest.param({"init_lora_weights": "pissa"}, id="PiSSA wants floats"),
    pytest.param({"init_lora_weights": "corda"}, id="CorDA wants floats"),
    pytest.param({"init_lora_weights": "olora"}, id="OLoRA dequantises"),
    pytest.param({"init_lora_weights": "orthogonal"}, id="orthogonal matrices want floats"),
    pytest.param({"arrow_config": {}}, id="Arrow crashes"),
    pytest.param({"modules_to_save": ["self_attn"]}, id="packed modules can't be saved whole"),
    pytest.param({"modules_to_save": ["lm_head"], "bias": "all", "trainable_token_indices": [0]}, id="what is not packed can"),
    pytest.param({"target_parameters": ["q_proj.weight"], "target_modules": []}, id="packed parameters"),
    pytest.param({"layer_replication": [[0, 2], [1, 2]]}, id="layers repeated"),
    pytest.param({"peft_type": "ADALORA", "total_step": 10}, id="AdaLoRA"),
]  # fmt: skip


BASES = [
    ("nf4", "bfloat16", None),
    ("nf4", "bfloat16", "base"),
    ("nf4 in float16", "bfloat16", "base"),
    ("int8", "bfloat16", "base"),
    ("int8", "float32", None),
    ("nf4 as bfloat16", "bfloat16", None),
]


@pytest.fixture(scope="module", params=BASES, ids=lambda params: "-".join(map(str, params)))
def base(request, tmp_path_factory):
    for name in ("torch", "transformers", "peft", "bitsandbytes"):
        pytest.importorskip(name)
    import transformers

    from tests.lora.judge.families import build

    how, dtype, adapter_dtype = request.param
    precision = how.partition(" ")[0]
    place = tmp_path_factory.mktemp(precision)
    build("llama", "LlamaForCausalLM", dtype, SIZES).save_pretrained(place)
    config = transformers.BitsAndBytesConfig(**HOW[how])
    model = transformers.LlamaForCausalLM.from_pretrained(
        place, dtype="auto", quantization_config=config, device_map="cpu"
    )
    options = {"base_precision": precision}
    options |= {ours: HOW[how][theirs] for ours, theirs in OPTIONS.items() if theirs in HOW[how]}
    options |= {"adapter_dtype": adapter_dtype} if adapter_dtype is not None else {}
    return model, str(place), options


@pytest.mark.parametrize("config", CONFIGS)
def test_the_estimate_is_what_peft_does(base, config):
    from estimator.jobs.base import BaseCache
    from tests.lora.judge.compare import differences
    from tests.lora.judge.truth import outcome

    model, place, options = base
    lora = {**NAMES, **config}
    real = outcome(model, copy.deepcopy(lora), options)
    assert differences(place, lora, options, real, BaseCache()) == []


HEADS = [
    pytest.param({"target_modules": ["q_proj", "lm_head"]}, id="an adapted head"),
    pytest.param({"target_modules": ["lm_head"], "init_lora_weights": "olora"}, id="OLoRA quantises it anew"),
    pytest.param({"modules_to_save": ["lm_head"]}, id="a head that is saved whole"),
    pytest.param({"modules_to_save": ["mlp"], "init_lora_weights": "olora"}, id="layers within what is saved whole"),
    pytest.param({"target_modules": ["q_proj", "embed_tokens"]}, id="a head beside an adapted embedding"),
]


@pytest.fixture(
    scope="module",
    params=[("nf4", True, "uint8"), ("nf4", False, "bfloat16"), ("fp4", True, "float16")],
    ids=lambda params: "-".join(map(str, params)),
)
def packed_heads(request, tmp_path_factory):
    """A model whose head is packed as well, as it is loaded and as it is loaded again from what it saved."""
    for name in ("torch", "transformers", "peft", "bitsandbytes"):
        pytest.importorskip(name)
    import transformers

    from tests.lora.judge.families import build

    how, double, storage = request.param
    place, saved = (str(tmp_path_factory.mktemp(name)) for name in ("plain", "saved"))
    build("llama", "LlamaForCausalLM", "bfloat16", {**SIZES, "tie_word_embeddings": False}).save_pretrained(place)
    said = {"bnb_4bit_quant_type": how, "bnb_4bit_use_double_quant": double, "bnb_4bit_quant_storage": storage}
    config = transformers.BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=[], **said)
    loaded = transformers.LlamaForCausalLM.from_pretrained(
        place, dtype="auto", quantization_config=config, device_map="cpu"
    )
    loaded.save_pretrained(saved)
    again = transformers.LlamaForCausalLM.from_pretrained(saved, dtype="auto", device_map="cpu")
    options = {"base_precision": how, "double_quant": double, "quant_storage": storage, "skip_modules": []}
    return (loaded, place, options), (again, saved, {"base_precision": "stored"})


@pytest.mark.parametrize("config", HEADS)
def test_packed_heads_are_saved_with_their_state(packed_heads, config):
    from estimator.jobs.base import BaseCache
    from tests.lora.judge.compare import differences
    from tests.lora.judge.truth import outcome

    for model, place, options in packed_heads:
        lora = {**NAMES, **config}
        real = outcome(model, copy.deepcopy(lora), options)
        assert differences(place, lora, options, real, BaseCache()) == []


@pytest.fixture(scope="module", params=[None, "base"], ids=["autocast", "base"])
def eight_bit_floats(request, tmp_path_factory):
    """FineGrainedFP8 with its head converted, kept packed as on a GPU that runs it."""
    for name in ("torch", "transformers", "peft"):
        pytest.importorskip(name)
    import transformers
    from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer

    from tests.lora.judge.families import build

    place, saved = (str(tmp_path_factory.mktemp(name)) for name in ("plain", "saved"))
    build("llama", "LlamaForCausalLM", "bfloat16", {**SIZES, "tie_word_embeddings": False}).save_pretrained(place)
    config = transformers.FineGrainedFP8Config(weight_block_size=(16, 16), modules_to_not_convert=[])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FineGrainedFP8HfQuantizer, "validate_environment", lambda self, *args, **kwargs: None)
        loaded = transformers.LlamaForCausalLM.from_pretrained(place, dtype="auto", quantization_config=config)
        loaded.save_pretrained(saved)
        again = transformers.LlamaForCausalLM.from_pretrained(saved, dtype="auto")
    return again, saved, {"base_precision": "stored", **({"adapter_dtype": request.param} if request.param else {})}


@pytest.mark.parametrize("config", [*CONFIGS, *HEADS])
def test_on_8_bit_floats(eight_bit_floats, config):
    from estimator.jobs.base import BaseCache
    from tests.lora.judge.compare import differences
    from tests.lora.judge.truth import outcome

    model, place, options = eight_bit_floats
    lora = {**NAMES, **config}
    real = outcome(model, copy.deepcopy(lora), options)
    assert differences(place, lora, options, real, BaseCache()) == []
