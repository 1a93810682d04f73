"""Llama 4's experts in checkpoints of bitsandbytes and compressed-tensors, which transformers takes one by one."""

from __future__ import annotations

import pytest

from estimator.architecture.build import build
from estimator.architecture.from_config import from_config
from estimator.architecture.unfused import check_experts
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.errors import MalformedConfigError, UnsupportedError
from estimator.jobs.by_config import second_opinion

CONFIG = {
    "architectures": ["Llama4ForCausalLM"], "model_type": "llama4_text", "hidden_size": 64, "intermediate_size": 32,
    "intermediate_size_mlp": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "num_local_experts": 3, "vocab_size": 100, "interleave_moe_layer_step": 1, "dtype": "bfloat16",
}  # fmt: skip
LAYER = "model.layers.1.feed_forward"
APART = {f"{LAYER}.experts.{at}.{name}_proj" for at in range(3) for name in ("gate", "up", "down")}


def tree_of(quantization, *, fused):
    """Built from headers that hold the experts fused, or one by one as Llama4TextMLP."""
    held = {f"{m.name}.{p.name}": p.shape for m in from_config(CONFIG).modules for p in m.parameters}
    if not fused:
        held = {name: shape for name, shape in held.items() if ".experts." not in name}
        for layer in range(2):
            for at in range(3):
                expert = f"model.layers.{layer}.feed_forward.experts.{at}"
                held |= {f"{expert}.{name}_proj.weight": (32, 64) for name in ("gate", "up")}
                held[f"{expert}.down_proj.weight"] = (64, 32)
    tensors = {name: Tensor(name, "BF16", shape, "one") for name, shape in held.items()}
    config = {**CONFIG, **({"quantization_config": quantization} if quantization else {})}
    return build(config, Checkpoint(tensors=tensors, files=(), bytes=0))


@pytest.mark.parametrize(
    "quantization",
    [{"quant_method": "bitsandbytes", "load_in_4bit": True}, {"quant_method": "compressed-tensors"}],
    ids=lambda said: said["quant_method"],
)
def test_experts_stored_one_by_one_are_built_so(quantization):
    tree = tree_of(quantization, fused=False)
    kinds = {module.name: (module.cls, module.kind) for module in tree.modules}
    assert {name for name in kinds if name.startswith(f"{LAYER}.experts.") and name.endswith("_proj")} == APART
    assert kinds[f"{LAYER}.experts"][0] == "SequentialLlama4TextExperts"
    assert kinds[f"{LAYER}.experts.0.up_proj"] == ("Linear", "Linear")
    assert (tree.basis, tree.notes) == ("exact", ())
    check_experts(tree)
    assert second_opinion(tree, tree.config, None, None) == (None, ())  # of fused experts
    with pytest.raises(MalformedConfigError):  # all the same
        second_opinion(tree, tree.config | {"vocab_size": "many"}, None, None)


def test_experts_stored_fused_are_loaded_by_nobody():
    tree = tree_of({"quant_method": "bitsandbytes", "load_in_8bit": True}, fused=True)
    with pytest.raises(UnsupportedError, match="stored fused"):
        check_experts(tree)


@pytest.mark.parametrize("quantization", [None, {"quant_method": "fp8"}], ids=["none", "fp8"])
def test_elsewhere_they_are_fused(quantization):
    tree = tree_of(quantization, fused=True)
    assert f"{LAYER}.experts.0.up_proj" not in {module.name for module in tree.modules}
    check_experts(tree)


def test_config_json_alone_does_not_lay_them_out():
    quantization = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    with pytest.raises(UnsupportedError, match="headers"):
        check_experts(from_config({**CONFIG, "quantization_config": quantization}))
    check_experts(from_config(CONFIG))
