"""Which modules of real classes a stored scheme converts, by their classes and by the names that a config says."""

from __future__ import annotations

from contextlib import nullcontext
from math import prod

import pytest

from estimator.architecture.from_config import from_config
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.checkpoint.quantized import unpack
from estimator.errors import UnsupportedError, UnsupportedModuleError
from estimator.lora.adapt import adapt
from estimator.request.load_options import LoadOptions
from estimator.request.lora_config import from_mapping
from estimator.sizes.base import base_sizes
from tests.sizes.trees import one_linear


@pytest.mark.parametrize(
    ("method", "converted"), [("auto-round", set()), ("gptq", set()), ("awq", {"layers.0.q_proj"})]
)
def test_what_becomes_of_classes_derived_from_linear(method, converted):
    """Falcon's: optimum and AutoRound ask for Linear itself, gptqmodel's AWQ for what is one."""
    fields = {"quant_method": method, "bits": 4, "group_size": 64, "block_name_to_quantize": "layers"}
    tree = one_linear({"dtype": "bfloat16", "quantization_config": fields})
    falcon = tuple(m._replace(cls="FalconLinear") if m.name == "layers.0.q_proj" else m for m in tree.modules)
    sizes = base_sizes(tree._replace(modules=falcon), None, LoadOptions())
    assert sizes.model.quantised.keys() == converted


NEOX = {
    "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "vocab_size": 256, "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "dtype": "bfloat16",
}  # fmt: skip


def test_activations_that_awq_gives_scales():
    """A tiny GPT-NeoX that auto-round saved as AWQ, loaded by transformers 5.23.0 with gptqmodel 7.7.0."""
    fields = {"quant_method": "awq", "bits": 4, "group_size": 32, "modules_to_not_convert": ["embed_out"]}
    sizes = base_sizes(from_config({**NEOX, "quantization_config": fields}), None, LoadOptions())
    assert (sizes.loaded.footprint_bytes, sizes.all_parameters) == (107_024, 33_664)
    assert {layer.cls for layer in sizes.model.quantised.values()} == {"AwqQuantLinear", "ScaledActivation"}


def test_scales_of_activations_are_not_missed():
    """AutoAWQ stores them, auto-round does not; from_pretrained has them as ones."""
    config = {**NEOX, "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32}}
    tree = from_config(config)
    packed = [m.name for m in tree.modules if m.kind == "Linear" and m.name != "embed_out"]
    names = [f"{name}.qweight" for name in packed] + ["gpt_neox.layers.0.mlp.act.scales"]
    tensors = {name: Tensor(name, "I32", (64, 8), "one") for name in names}
    sizes = base_sizes(tree, Checkpoint(tensors=tensors, files=(), bytes=0), LoadOptions())
    assert "packed_missing" not in {note.code for note in sizes.notes}
    assert "gpt_neox.layers.0.mlp.act.scales" not in unpack(config, Checkpoint(tensors, (), 0)).checkpoint.tensors


QWEN = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 64,
    "tie_word_embeddings": False, "dtype": "bfloat16",
}  # fmt: skip
BITNET = {"quant_method": "bitnet"}
UNPACKED = {**BITNET, "linear_class": "autobitlinear"}
IN_WORDS = {"bits": 4, "group_size": 32}


@pytest.mark.parametrize(
    ("fields", "saved", "biases"),
    [  # transformers 5.23.0, gptqmodel 7.7.0, optimum 2.3.0, PEFT 0.21.2: what trains, and elements in the file
        pytest.param(BITNET, (192, 481), (192, 288), id="BitNet"),
        pytest.param(UNPACKED, (1248, 1249), (288, 288), id="BitNet, unpacked: a scale is a buffer"),
        pytest.param({"quant_method": "awq", **IN_WORDS}, (192, 388), (192, 288), id="AWQ"),
        pytest.param({"quant_method": "gptq", **IN_WORDS}, (192, 420), (192, 288), id="GPTQ"),
    ],
)
def test_what_lies_in_buffers_is_saved_and_does_not_train(fields, saved, biases):
    base = base_sizes(from_config({**QWEN, "quantization_config": fields}), None, LoadOptions(dtype="F16")).model
    asked = {"r": 2, "target_modules": ["lm_head"]}
    for more, (trained, elements) in (({"modules_to_save": ["q_proj"]}, saved), ({"bias": "all"}, biases)):
        done = adapt(base, from_mapping({**asked, **more}), save_embedding_layers="no")
        assert (done.trainable_parameters, sum(prod(t.shape) for t in done.tensors)) == (trained, elements)


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        pytest.param(UNPACKED, True, id="unpacked"),
        pytest.param(BITNET, False, id="packed"),
        pytest.param({**UNPACKED, "quantization_mode": "online"}, False, id="stored as it was trained"),
    ],
)
def test_what_bitnet_unpacks_keeps_the_dtype_of_the_file(fields, kept):
    tree = one_linear({"dtype": "bfloat16", "quantization_config": fields})
    stored = {f"{m.name}.weight": m.parameters[0] for m in tree.modules if m.parameters}
    tensors = {name: Tensor(name, own.dtype, own.shape, "one") for name, own in stored.items()}
    loaded = base_sizes(tree, Checkpoint(tensors, (), 0), LoadOptions(dtype="F32")).model
    head = next(m for m in loaded.modules if m.name == "lm_head")
    assert head.parameters[0].dtype == ("BF16" if kept else "F32")


@pytest.mark.parametrize(
    ("data_type", "refused"),
    [  # auto-round 0.16.1: MXFP4QuantLinear, NVFP4QuantLinear and WeightFP8ActFP8StaticQuantLinear, whatever the device
        ("int", False), ("mx_fp", True), ("nv_fp", True), ("fp", True),
    ],
)  # fmt: skip
def test_layers_of_auto_round_that_peft_does_not_know(data_type, refused):
    fields = {
        "quant_method": "auto-round",
        **IN_WORDS,
        "data_type": data_type,
        "block_name_to_quantize": "model.layers",
    }
    base = base_sizes(from_config({**QWEN, "quantization_config": fields}), None, LoadOptions()).model
    with pytest.raises(UnsupportedModuleError, match=data_type) if refused else nullcontext():
        adapt(base, from_mapping({"target_modules": ["q_proj"]}))


AQLM = {"quant_method": "aqlm", "in_group_size": 8, "nbits_per_codebook": 8}


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        pytest.param(BITNET, False, id="BitNet's default list spares the head"),
        pytest.param({**BITNET, "modules_to_not_convert": []}, True, id="BitNet: `weight` is not an nn.Parameter"),
        pytest.param({**AQLM, "linear_weights_not_to_quantize": ["lm_head"]}, False, id="AQLM: a head that is spared"),
        pytest.param(AQLM, True, id="AQLM: QuantizedLinear has no attribute `weight`"),
    ],
)
def test_a_packed_weight_that_is_tied_does_not_load(fields, refused):
    tree = from_config({**QWEN, "tie_word_embeddings": True, "quantization_config": fields})
    with pytest.raises(UnsupportedError, match="tied to another, lm_head") if refused else nullcontext():
        base_sizes(tree, None, LoadOptions())


def test_a_packed_head_that_is_adapted_is_not_saved_along():
    """PEFT's has_valid_embedding_base_layer: aqlm's QuantizedLinear is no Linear."""
    tree = from_config({**QWEN, "quantization_config": AQLM})
    done = adapt(base_sizes(tree, None, LoadOptions()).model, from_mapping({"target_modules": ["lm_head"], "r": 2}))
    assert {t.name.rpartition(".lm_head.")[2] for t in done.tensors} == {"lora_A.weight", "lora_B.weight"}


@pytest.mark.parametrize(
    ("stored", "dtype"), [(("weight", "input_scale", "output_scale"), "BF16"), (("weight",), "F32")]
)
def test_scales_of_quanto_that_are_read_take_the_load_dtype(stored, dtype):
    """transformers 5.23.0 with optimum-quanto 0.2.7, whose own files have them; the class makes ones in float32."""
    tree = one_linear({"dtype": "bfloat16", "quantization_config": {"quant_method": "quanto", "weights": "int8"}})
    tensors = {f"layers.0.q_proj.{own}": Tensor(f"layers.0.q_proj.{own}", "F32", (), "one") for own in stored}
    layer = base_sizes(tree, Checkpoint(tensors, (), 0), LoadOptions(dtype="BF16")).model.quantised["layers.0.q_proj"]
    assert {buffer.dtype for buffer in layer.buffers} == {dtype}


GPT2 = {
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 96, "n_embd": 64, "n_layer": 1, "n_head": 2,
}  # fmt: skip
T5 = {
    "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "vocab_size": 96, "d_model": 64, "d_kv": 16,
    "d_ff": 128, "num_layers": 1, "num_heads": 4,
}  # fmt: skip
HIERA = {"architectures": ["HieraForImageClassification"], "model_type": "hiera"}


@pytest.mark.parametrize(
    ("config", "fields", "cls"),
    [  # loaded by transformers 5.23.0: "object has no attribute 'weight'", or whole
        pytest.param(GPT2, {"quant_method": "gptq", **IN_WORDS}, "GPT2MLP|GPT2Attention", id="GPT-2 in GPTQ"),
        pytest.param(T5, {"quant_method": "awq", **IN_WORDS}, "T5", id="T5 in AWQ"),
        pytest.param(T5, {**AQLM, "linear_weights_not_to_quantize": ["lm_head"]}, "T5", id="T5 in AQLM"),
        pytest.param(HIERA, {"quant_method": "awq", **IN_WORDS}, None, id="Hiera asks Linear alone"),
        pytest.param(QWEN, {"quant_method": "gptq", **IN_WORDS}, None, id="Qwen2"),
    ],
)
def test_classes_that_read_the_weight_of_what_is_packed(config, fields, cls):
    tree = from_config({**config, "quantization_config": fields})
    with pytest.raises(UnsupportedError, match=f"initialises ({cls})") if cls else nullcontext():
        base_sizes(tree, None, LoadOptions())


LLAVA = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "dtype": "bfloat16",
    "text_config": {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
                    "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 128},
    "vision_config": {"model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 128,
                      "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28, "patch_size": 14},
}  # fmt: skip


STORED, RUN_TIME = "language_model.model.layers", "model.language_model.layers"


@pytest.mark.parametrize("layers", [STORED, RUN_TIME])
def test_names_of_the_file_stand_for_modules(layers):
    """transformers renames LLaVA's language model: configs that quantisers wrote before say the stored names."""
    auto_round = {"quant_method": "auto-round", "bits": 4, "group_size": -1, "block_name_to_quantize": layers,
                  "extra_config": {f"{layers}.0.mlp.up_proj": {"bits": 16}}}  # fmt: skip
    mlx = {"group_size": 64, "bits": 4, f"{layers}.0.mlp.up_proj": {"group_size": 64, "bits": 8},
           f"{layers}.1.mlp.up_proj": False}  # fmt: skip
    converted = converted_of({**LLAVA, "quantization_config": auto_round})
    assert len(converted) == 2 * 7 - 1
    assert all(name.startswith(RUN_TIME) for name in converted)
    packed = converted_of({**LLAVA, "quantization": mlx})
    assert packed[f"{RUN_TIME}.0.mlp.up_proj"].parameters[0].shape == (128, 16)
    assert packed[f"{RUN_TIME}.1.mlp.down_proj"].parameters[0].shape == (64, 16)
    assert f"{RUN_TIME}.1.mlp.up_proj" not in packed


def converted_of(config):
    return base_sizes(from_config(config), None, LoadOptions()).model.quantised
