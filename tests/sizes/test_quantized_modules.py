"""Which modules of real classes a stored scheme converts, by their classes and by the names that a config says."""

from __future__ import annotations

from math import prod

import pytest

from estimator.architecture.from_config import from_config
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.checkpoint.quantized import unpack
from estimator.errors import UnsupportedError
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


def test_a_packed_weight_that_is_tied_does_not_load_as_bitnet():
    """transformers 5.23.0: "`weight` is not an nn.Parameter"; the default list spares the head."""
    config = {**QWEN, "tie_word_embeddings": True}
    spares_all = from_config({**config, "quantization_config": BITNET})
    assert "lm_head" not in base_sizes(spares_all, None, LoadOptions()).model.quantised
    spares_none = from_config({**config, "quantization_config": {**BITNET, "modules_to_not_convert": []}})
    with pytest.raises(UnsupportedError, match="tied to another, lm_head"):
        base_sizes(spares_none, None, LoadOptions())


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
