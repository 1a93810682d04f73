"""Gemma's own quantised checkpoints: by hand, and as transformers loads one."""

from __future__ import annotations

import json

import pytest

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.errors import UnsupportedError
from estimator.request.load_options import LoadOptions
from estimator.sizes.base import base_sizes

ROWS, COLUMNS = 6, 10
SCALES = 4 * ROWS + 4 + 4  # one for each row, of inputs and of outputs
NORM = 2 * COLUMNS


def tree(fields, tied=False):
    weight = Parameter("weight", (ROWS, COLUMNS), "BF16")
    modules = (
        Module("embed", "Scaled", "Embedding", (weight,), (Parameter("embed_scale", (), "BF16", persistent=False),)),
        Module("layers.0.up", "Linear", "Linear", (weight,)),
        Module("norm", "Norm", "other", (Parameter("weight", (COLUMNS,), "BF16"),)),
    )
    config = {"dtype": "bfloat16", "quantization_config": {"quant_method": "gemma", **fields}}
    ties = {"tie_word_embeddings": True, "declared_ties": {"head.weight": "embed.weight"}} if tied else {}
    return ModuleTree(architecture=None, config=config, modules=modules, tied={}, **ties)


def own(**bits):
    return {"module_quant_configs": {pattern: {"num_bits": one} for pattern, one in bits.items()}}


@pytest.mark.parametrize(
    ("fields", "packed"),
    [
        pytest.param({}, 5, id="4 bits where nothing is said"),
        pytest.param({"num_bits": 2}, 3, id="a row's last byte is not full"),
        pytest.param({"num_bits": 8}, 10, id="8"),
        pytest.param({"num_bits": 8, **own(up=2)}, 3, id="a layer's own"),
        pytest.param(own(up=8, layers=2), 3, id="of two patterns the one that is found first in the name"),
        pytest.param(own(layers=8, lay=2), 10, id="of two that are found there the one that is said first"),
    ],
)
def test_bytes_of_a_linear(fields, packed):
    embedding = 2 * ROWS * COLUMNS + 2
    loaded = base_sizes(tree(fields), None, LoadOptions()).loaded
    assert loaded.footprint_bytes == embedding + ROWS * packed + SCALES + NORM


def test_bytes_of_an_embedding():
    """Its buffer goes with it."""
    loaded = base_sizes(tree({"quantize_embeddings": True}), None, LoadOptions()).loaded
    assert loaded.footprint_bytes == 2 * ROWS * 5 + 4 * ROWS + SCALES + NORM


def test_an_embedding_that_is_tied_does_not_load():
    with pytest.raises(UnsupportedError, match="embed"):
        base_sizes(tree({"quantize_embeddings": True}, tied=True), None, LoadOptions())


@pytest.mark.judges
@pytest.mark.parametrize(
    "fields",
    [
        {"num_bits": 2, "quantize_embeddings": True, **own(o_proj=8, self_attn=4)},
        {"modules_to_not_convert": ["model.layers.0.mlp"]},
    ],
)
def test_as_transformers_loads_it(fields, tmp_path):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from peft import LoraConfig, get_peft_model
    from transformers.integrations.gemma_quant import replace_with_quant_layers
    from transformers.quantizers.base import HfQuantizer
    from transformers.utils.quantization_config import GemmaQuantizationConfig

    import estimator

    config = transformers.Gemma3TextConfig(
        hidden_size=18, intermediate_size=22, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
        head_dim=6, vocab_size=50, tie_word_embeddings=False, pad_token_id=0,
    )  # fmt: skip
    model = transformers.Gemma3ForCausalLM(config).bfloat16()
    spared = HfQuantizer.get_modules_to_not_convert(model, fields.get("modules_to_not_convert"), None)
    replace_with_quant_layers(model, GemmaQuantizationConfig(**fields), spared)
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["quantization_config"] = {"quant_method": "gemma", **fields}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    loaded = transformers.Gemma3ForCausalLM.from_pretrained(tmp_path)
    answer = estimator.estimate(str(tmp_path), lora={"r": 2, "target_modules": "all-linear"})
    assert answer["model"]["basis"] == "exact"
    assert answer["base"]["loaded"]["footprint_bytes"] == loaded.get_memory_footprint()
    adapted = get_peft_model(loaded, LoraConfig(r=2, target_modules="all-linear"))
    counted = answer["adapter"]["parameters"], answer["totals"]["all_parameters"]
    assert counted == adapted.get_nb_trainable_parameters()
