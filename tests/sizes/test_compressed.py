"""compressed-tensors on a tiny Llama: what transformers 5.23.0 with compressed-tensors 0.20.0 made of such files."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from estimator.architecture.from_config import from_config
from estimator.architecture.module import Module
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.errors import MalformedConfigError, UnsupportedError
from estimator.request.load_options import LoadOptions
from estimator.sizes.base import base_sizes
from estimator.sizes.schemes.read_weights import first_read
from tests.real_models import SMALL, tiny_model

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "intermediate_size": 256,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 320,
    "dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
FP8 = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}
TENSOR = {"num_bits": 8, "type": "int", "symmetric": False, "strategy": "tensor"}
TOKENS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
INT8 = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
STATIC = {"num_bits": 8, "type": "float", "strategy": "tensor"}
BYTES = {"type": "float", "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}
PLAIN = 755_072


def loaded(weights, inputs=None, **fields):
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    return loaded_by({"group_0": group}, **fields)


def loaded_by(groups, **fields):
    section = {"quant_method": "compressed-tensors", "quantization_status": "compressed", "ignore": ["lm_head"]}
    section |= {"config_groups": groups, **fields}
    return base_sizes(from_config({**CONFIG, "quantization_config": section}), None, LoadOptions()).loaded


@pytest.mark.parametrize(
    ("weights", "inputs", "fields", "footprint_bytes"),
    [
        pytest.param(FP8, None, {}, 464_256, id="8-bit floats, a scale a row"),
        pytest.param(FP8, None, {"format": "novel"}, 464_256, id="the format that the config names is not read"),
        pytest.param(FP8, None, {"quantization_status": "frozen"}, 761_216, id="frozen: plain weights, scales, zeros"),
        pytest.param(FP8, None, {"quantization_status": None}, 761_216, id="no status: the same"),
        pytest.param(FP8, None, {"kv_cache_scheme": {**FP8, "strategy": "tensor"}}, 464_264, id="caches with scales"),
        pytest.param(INT8, TOKENS, {}, 464_256, id="integers of a byte, activations as they come"),
        pytest.param(INT8, TENSOR, {}, 464_298, id="static activations around a zero point"),
        pytest.param(INT8, None, {}, 464_480, id="integers alone are packed"),
        pytest.param({"num_bits": 4, "group_size": 128}, None, {}, 317_536, id="groups without a strategy"),
        pytest.param({"num_bits": 4, "group_size": -1}, None, {}, 317_024, id="rows without a strategy"),
        pytest.param({**INT8, "num_bits": 6}, None, {}, 390_752, id="six bits"),
        pytest.param({**BYTES, "num_bits": 8}, None, {}, 469_376, id="mxfp8"),
        pytest.param({**BYTES, "num_bits": 6}, None, {}, 395_648, id="mxfp6"),
        pytest.param({**BYTES, "num_bits": 4}, None, {}, 321_920, id="mxfp4"),
        pytest.param(FP8, None, {"config_groups": {}, "kv_cache_scheme": {**FP8, "strategy": "tensor"}}, PLAIN + 8,
                     id="caches alone"),
    ],
)  # fmt: skip
def test_a_scheme_weighs_what_its_layers_hold(weights, inputs, fields, footprint_bytes):
    assert loaded(weights, inputs, **fields).footprint_bytes == footprint_bytes


@pytest.mark.parametrize(
    ("name", "footprint_bytes"),
    [
        ("FP8_DYNAMIC", 464_256),
        ("fp8", 460_216),
        ("FP8_BLOCK", 460_200),
        ("W8A8", 464_256),
        ("W4A8", 464_768),
        ("W4A16", 317_536),
        ("NVFP4", 331_248),
        ("MXFP8", 469_376),
        ("UNQUANTIZED", PLAIN),
    ],
)
def test_a_preset_weighs_what_its_layers_hold(name, footprint_bytes):
    assert loaded_by({name: ["Linear"]}).footprint_bytes == footprint_bytes


@pytest.mark.parametrize("name", ["group_0", "W8A4", "W9A16"])
def test_a_name_that_is_no_preset(name):
    with pytest.raises(MalformedConfigError, match="no preset"):
        loaded_by({name: ["Linear"]})


@pytest.mark.parametrize(
    ("group", "fields", "footprint_bytes"),
    [
        pytest.param({"targets": ["Linear", "Embedding"], "weights": INT8, "input_activations": TOKENS}, {}, 423_936,
                     id="embeddings of integers"),
        pytest.param({"targets": ["Embedding"], "weights": INT8}, {"quantization_status": "frozen"}, 756_032,
                     id="a frozen embedding"),
        pytest.param({"targets": ["LlamaAttention"], "input_activations": STATIC}, {}, 755_084, id="attention"),
        pytest.param({"targets": ["LlamaAttention"], "input_activations": {**STATIC, "strategy": "attn_head"}}, {},
                     755_104, id="attention, head by head"),
        pytest.param({"targets": ["re:.*self_attn.*"], "input_activations": STATIC}, {}, PLAIN + 8 * 2,
                     id="attention with all that is in it: its projections alone"),
        pytest.param({"targets": ["Linear"], "input_activations": STATIC}, {"ignore": []}, 755_102, id="inputs alone"),
        pytest.param({"targets": ["LlamaMLP"], "weights": INT8}, {}, PLAIN, id="what holds layers"),
    ],
)  # fmt: skip
def test_what_else_a_group_may_target(group, fields, footprint_bytes):
    assert loaded_by({"g": group}, **fields).footprint_bytes == footprint_bytes


def test_classes_count_by_alphabet():
    groups = {"a": {"targets": ["Module"], "weights": INT8}, "b": {"targets": ["Linear"], "weights": FP8}}
    ignored = {"ignore": ["model.embed_tokens", "lm_head", "LlamaAttention"]}
    assert loaded_by(groups, **ignored).footprint_bytes == 464_256


@pytest.mark.parametrize(
    ("group", "words"),
    [
        pytest.param({"targets": ["LlamaAttention"], "weights": INT8}, "is attention", id="weights of attention"),
        pytest.param({"targets": ["re:.*self_attn$"], "weights": INT8}, "is attention", id="by a pattern"),
        pytest.param({"targets": ["LlamaAttention"], "input_activations": STATIC, "output_activations": STATIC},
                     "is attention", id="outputs of attention"),
        pytest.param({"targets": ["LlamaAttention"], "input_activations": {**STATIC, "strategy": "channel"}},
                     "no static scales", id="rows of attention"),
        pytest.param({"targets": ["Embedding"], "weights": INT8}, "packed", id="an embedding packed"),
        pytest.param({"targets": ["Linear"], "weights": INT8, "format": "marlin-24"}, "marlin-24", id="marlin"),
    ],
)  # fmt: skip
def test_what_the_library_does_not_load(group, words):
    with pytest.raises(UnsupportedError, match=words):
        loaded_by({"g": group})


@pytest.mark.parametrize(
    ("weights", "form", "fault"),
    [
        (FP8, "float-quantized", "8-bit floats, which is tied to model.embed_tokens"),
        (INT8, "pack-quantized", "packed, which is tied to model.embed_tokens"),
        (INT8, "int-quantized", None),
    ],
)
def test_a_tied_head_of_8_bit_floats_or_packed_is_refused(weights, form, fault):
    """torch.equal in `tie_weights`: bfloat16 and 8-bit floats have no dtype in common. "Linear has no attribute
    `weight`" where it is packed.
    """
    section = {"quant_method": "compressed-tensors", "quantization_status": "compressed", "ignore": []}
    section |= {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "format": form}}}
    tree = from_config({**CONFIG, "tie_word_embeddings": True, "quantization_config": section})
    with pytest.raises(UnsupportedError, match=fault) if fault else nullcontext():
        base_sizes(tree, None, LoadOptions())


T5 = {
    "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 72,
    "num_layers": 1, "num_heads": 2, "vocab_size": 101, "dtype": "bfloat16",
}  # fmt: skip


@pytest.mark.parametrize(
    ("weights", "inputs", "dtype", "footprint_bytes"),
    [
        pytest.param(FP8, None, "BF16", 12_128, id="nothing"),
        pytest.param(FP8, None, "F16", 19_104, id="8-bit floats and scales of T5's wo"),
        pytest.param(INT8, TOKENS, "F16", 12_192, id="scales alone beside integers"),
    ],
)
def test_what_is_kept_in_float32(weights, inputs, dtype, footprint_bytes):
    section = {"quant_method": "compressed-tensors", "quantization_status": "compressed", "ignore": ["lm_head"]}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    tree = from_config({**T5, "quantization_config": {**section, "config_groups": {"group_0": group}}})
    assert base_sizes(tree, None, LoadOptions(dtype=dtype)).loaded.footprint_bytes == footprint_bytes


@pytest.mark.parametrize(
    ("weights", "inputs", "spared", "fault"),
    [
        pytest.param(INT8, None, [], "SelfAttention.q packed", id="packed"),
        pytest.param(INT8, None, ["re:.*"], None, id="spared"),
        pytest.param(INT8, TOKENS, [], None, id="integers in place"),
    ],
)
def test_what_a_class_reads_the_weight_of_as_it_loads(weights, inputs, spared, fault):
    """`T5PreTrainedModel._init_weights`: 'Linear' object has no attribute 'weight'."""
    section = {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "ignore": ["lm_head", *spared],
    }
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    tree = from_config({**T5, "quantization_config": {**section, "config_groups": {"group_0": group}}})
    with pytest.raises(UnsupportedError, match=fault) if fault else nullcontext():
        base_sizes(tree, None, LoadOptions())


VISION = {**{k: v for k, v in SMALL.items() if k != "vocab_size"}, "image_size": 16, "patch_size": 8}


@pytest.mark.judges
@pytest.mark.parametrize(
    ("cls", "config"),
    [
        ("T5ForConditionalGeneration", {name: size for name, size in T5.items() if type(size) is int}),
        ("T5ForTokenClassification", {name: size for name, size in T5.items() if type(size) is int}),
        ("MT5EncoderModel", {"d_model": 16, "d_kv": 8, "d_ff": 72, "num_layers": 1, "feed_forward_proj": "relu"}),
        ("T5EncoderModel", {"d_model": 16, "d_kv": 8, "d_ff": 72, "num_layers": 1, "feed_forward_proj": "gated-gelu"}),
        ("SiglipVisionModel", VISION),
        ("MLCDVisionModel", VISION),
        ("TimesformerModel", {**VISION, "num_frames": 2}),
        ("Dinov2ForImageClassification", VISION),
        ("Dinov2ForImageClassification", {**VISION, "use_swiglu_ffn": True}),
        ("MambaForCausalLM", {**SMALL, "state_size": 8}),
        ("ModernBertForMaskedLM", {**SMALL, "pad_token_id": 0}),
        ("GPTBigCodeForCausalLM", {"n_embd": 48, "n_layer": 1, "n_head": 4, "vocab_size": 101}),
        ("NanoChatForCausalLM", SMALL),
        ("GPT2LMHeadModel", {"n_embd": 48, "n_layer": 1, "n_head": 4, "vocab_size": 101}),
        ("LlamaForCausalLM", SMALL),
        ("ViTForImageClassification", VISION),
        ("BertForMaskedLM", SMALL),
    ],
)
def test_what_is_initialised_by_its_weight(cls, config):
    """A model whose Linear has no weight, as one that is packed, before what runs on every module as it loads."""
    torch = pytest.importorskip("torch")
    model = tiny_model(cls, config)
    modules = [Module(name, type(module).__name__, "other") for name, module in model.named_modules()]
    packable = [name for name, module in model.named_modules() if type(module).__name__ in ("Linear", "Conv1D")]
    assert packable
    for name in packable:
        plain = model.get_submodule(name)
        weight = plain.weight
        del plain.weight
        assert (first_read(modules, [name], linear=True) is not None) == reads_weight(model)
        plain.weight = weight
        model.set_submodule(name, torch.nn.Module())
        assert (first_read(modules, [name], linear=False) is not None) == reads_weight(model)
        model.set_submodule(name, plain)


def reads_weight(model):
    for module in model.modules():
        vars(module).pop("_is_hf_initialized", None)
    try:
        model.initialize_weights()
    except AttributeError:
        return True
    return False


def test_a_file_in_a_format_that_the_library_has_removed():
    with pytest.raises(UnsupportedError, match="marlin-24"):
        loaded(INT8, format="marlin-24")


@pytest.mark.parametrize("order", ["group", "dynamic", True])
def test_orders_that_the_library_has_removed(order):
    with pytest.raises(UnsupportedError, match="ordered by activations"):
        loaded({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "actorder": order})


@pytest.mark.parametrize(
    ("stored", "parameters"), [("lm_head.weight", 379_840), ("model.norm.weight", 379_840 - 320 * 128)]
)
def test_a_head_that_is_stored_as_integers_is_not_tied(stored, parameters):
    """Its values are not the embedding's; one that the file lacks is the embedding's."""
    section = {"quant_method": "compressed-tensors", "quantization_status": "compressed", "ignore": []}
    section |= {"config_groups": {"g": {"targets": ["Linear"], "weights": INT8, "input_activations": TOKENS}}}
    tree = from_config({**CONFIG, "tie_word_embeddings": True, "quantization_config": section})
    checkpoint = Checkpoint({stored: Tensor(stored, "I8", (320, 128), "one")}, files=(), bytes=0)
    assert base_sizes(tree, checkpoint, LoadOptions()).all_parameters == parameters


@pytest.mark.parametrize(
    ("stored", "fault"), [("lm_head.weight", "8-bit floats, which is tied"), ("model.norm.weight", None)]
)
def test_a_tied_head_of_8_bit_floats_that_the_file_lacks_loads(stored, fault):
    """It takes the embedding's weight; its scales stay."""
    section = {"quant_method": "compressed-tensors", "quantization_status": "compressed", "ignore": []}
    section |= {"config_groups": {"g": {"targets": ["Linear"], "weights": FP8}}}
    tree = from_config({**CONFIG, "tie_word_embeddings": True, "quantization_config": section})
    checkpoint = Checkpoint({stored: Tensor(stored, "F8_E4M3", (320, 128), "one")}, files=(), bytes=0)
    with pytest.raises(UnsupportedError, match=fault) if fault else nullcontext():
        assert base_sizes(tree, checkpoint, LoadOptions()).all_parameters == 379_840 - 320 * 128
