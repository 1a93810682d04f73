"""Which modules of real classes a stored scheme converts, by their classes and by the names that a config says."""

from __future__ import annotations

import pytest

from estimator.architecture.from_config import from_config
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.checkpoint.quantized import unpack
from estimator.request.load_options import LoadOptions
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
