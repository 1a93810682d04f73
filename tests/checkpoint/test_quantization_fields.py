"""quantization_config of strangers: what is read of it, and what is refused before anything is computed from it."""

from __future__ import annotations

import pytest

from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.checkpoint.quantization import quantization_of
from estimator.checkpoint.quantized import unpack
from estimator.errors import MalformedConfigError, MalformedHeaderError
from estimator.request import patterns


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"quant_method": "gptq", "bits": 4, "group_size": -1, "desc_act": True}, id="GPTQ, one group"),
        pytest.param({"quant_method": "awq", "modules_to_not_convert": None}, id="nothing named"),
        pytest.param({"quant_method": "quanto", "weights": "int8"}, id="quanto's weights are a word"),
        pytest.param({"group_size": 64, "bits": 4, "lm_head": False}, id="MLX leaves a layer out"),
        pytest.param({"quant_method": "fp8", "weight_block_size": [128, 128]}, id="blocks"),
        pytest.param(
            {"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"], "weights": None}}},
            id="a group without weights",
        ),
        pytest.param({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4}}}, id="HQQ"),
        pytest.param(
            {"quant_method": "hqq", "quant_config": {"mlp": {"weight_quant_params": {"nbits": 1.58}}}}, id="HQQ by tags"
        ),
        pytest.param({"quant_method": "exl2", "bits": 4.65}, id="a quantiser of which no field is read"),
    ],
)
def test_what_quantisers_write(fields: dict[str, object]) -> None:
    found = quantization_of({"quantization_config": fields})
    assert found is not None
    assert found.fields == fields


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"bits": 0}, "bits", id="no bits"),
        pytest.param({"bits": True}, "bits", id="yes for bits"),
        pytest.param({"bits": float("nan")}, "nan", id="bits that are no number"),
        pytest.param({"bits": 10**30}, "bits", id="more bits than there are"),
        pytest.param({"group_size": 0}, "group_size", id="groups of nothing"),
        pytest.param({"group_size": "x"}, "'x'", id="a group in words"),
        pytest.param({"modules_to_not_convert": -1}, "list of names", id="names that are a number"),
        pytest.param({"quant_method": "higgs", "modules_to_not_convert": -1}, "list of names", id="HIGGS' names"),
        pytest.param({"modules_to_not_convert": ["a", {}]}, "list of names", id="an object among the names"),
        pytest.param({"llm_int8_skip_modules": "lm_head"}, "list of names", id="a name for a list"),
        pytest.param({"weight_block_size": [128, 0]}, "weight_block_size", id="blocks of nothing"),
        pytest.param({"weight_block_size": 128}, "weight_block_size", id="one side of a block"),
        pytest.param({"modules_in_block_to_quantize": ["q"]}, "lists", id="names for lists of names"),
        pytest.param({"block_name_to_quantize": 7}, "a name", id="a name that is a number"),
        pytest.param(
            {"quant_method": "gemma", "module_quant_configs": {"mlp": {"num_bits": [2]}}}, "mlp", id="a layer's bits"
        ),
        pytest.param(
            {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 7}}},
            "1.58",
            id="HQQ has no 7 bits",
        ),
        pytest.param(
            {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": True}}},
            "1.58",
            id="HQQ's bits are no switch",
        ),
        pytest.param(
            {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"axis": 2}}}, "0 or 1", id="a third axis"
        ),
        pytest.param(
            {"quant_method": "hqq", "quant_config": {"mlp": {"weight_quant_params": []}}},
            "quant_config.mlp.",
            id="a tag's",
        ),
        pytest.param({"config_groups": True}, "config_groups", id="groups that are none"),
        pytest.param({"config_groups": {"g": 1}}, "config_groups", id="a group that is a number"),
        pytest.param({"config_groups": {"g": {"targets": [1]}}}, "config_groups.g.targets", id="a number as target"),
        pytest.param({"config_groups": {"g": {"weights": []}}}, "config_groups.g.weights", id="weights as a list"),
        pytest.param(
            {"config_groups": {"g": {"weights": {"num_bits": "x"}}}}, "config_groups.g.weights.num_bits", id="deep down"
        ),
        *(
            pytest.param(
                {"config_groups": {"g": {part: {"num_bits": bits}}}},
                f"{part}.num_bits",
                id=f"{bits!r:.9} bits of {part}",
            )
            for part in ("weights", "input_activations")
            for bits in (None, 0, -4, True, 4.0, "4", [4], {}, 2**80, float("nan"), float("inf"))
        ),
        pytest.param(
            {"config_groups": {"g": {"weights": {"strategy": "rows"}}}}, "weights.strategy", id="a new strategy"
        ),
        pytest.param({"config_groups": {"g": {"weights": {"type": "fp"}}}}, "weights.type", id="a new type"),
        pytest.param({"quant_config": 4}, "quant_config", id="HQQ's settings as a number"),
        pytest.param({"quant_config": {"weight_quant_params": []}}, "weight_quant_params", id="HQQ's as a list"),
        pytest.param({"model.layers.0.q_proj": {"bits": -4}}, "model.layers.0.q_proj.bits", id="one of MLX's layers"),
    ],
)
def test_what_no_quantiser_reads(fields: dict[str, object], words: str) -> None:
    with pytest.raises(MalformedConfigError) as refused:
        quantization_of({"quantization_config": {"quant_method": "gptq", **fields}})
    assert words in refused.value.what
    assert "quantization_config" in refused.value.what


def one(prefix: str = "q_proj.", **tensors: tuple[str, tuple[int, ...]]) -> Checkpoint:
    stored = {prefix + name: Tensor(prefix + name, dtype, shape, "f") for name, (dtype, shape) in tensors.items()}
    return Checkpoint(tensors=stored, files=(), bytes=0)


@pytest.mark.parametrize(
    ("fields", "tensors"),
    [
        pytest.param({"quant_method": "gptq", "bits": 4}, {"qweight": ("I32", (8,))}, id="a vector"),
        pytest.param({"quant_method": "awq", "bits": 4}, {"qweight": ("I32", ())}, id="a number"),
        pytest.param({"quant_method": "awq", "bits": 4}, {"qweight": ("I32", (2, 2, 2))}, id="a cube"),
        pytest.param(
            {"quant_method": "aqlm"},
            {"codes": ("I8", (2, 2)), "codebooks": ("F16", (1,)), "scales": ("F16", (1,))},
            id="flat",
        ),
    ],
)
def test_packed_tensors_of_other_dimensions(
    fields: dict[str, object], tensors: dict[str, tuple[str, tuple[int, ...]]]
) -> None:
    with pytest.raises(MalformedHeaderError, match="packed layer"):
        unpack({"quantization_config": fields}, one(**tensors))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        pytest.param("re:((", "no regular expression", id="faulty"),
        pytest.param("re:(x+)+$y", "takes longer than", id="endless"),
    ],
)
def test_a_target_that_cannot_be_matched(target: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "DEADLINE_SECONDS", 0.3)
    group = {"targets": [target], "weights": {"num_bits": 4, "group_size": 32}}
    config = {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"g": group}}}
    name = "x" * 60
    packed = {f"{name}.weight_packed": ("I32", (8, 1)), f"{name}.weight_scale": ("BF16", (8, 1))}
    with pytest.raises(MalformedConfigError, match=message):
        unpack(config, one("", **packed))


def test_the_group_that_names_a_layer_counts_before_that_of_its_class() -> None:
    groups = {
        "a": {"targets": ["re:.*down"], "weights": {"num_bits": 8, "group_size": 16}},
        "b": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 32}},
    }
    config = {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": groups}}
    packed = {f"{name}.{part}": (dtype, (8, 2)) for name in ("mlp.down", "mlp.up")
              for part, dtype in (("weight_packed", "I32"), ("weight_scale", "BF16"))}  # fmt: skip
    tensors = unpack(config, one("", **packed)).checkpoint.tensors
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "mlp.down.weight": (8, 32),
        "mlp.up.weight": (8, 64),
    }
