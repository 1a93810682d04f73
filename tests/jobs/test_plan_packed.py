"""A plan of every way in which a base is stored quantised, and what an element of its matrices takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from estimator.jobs.base import BaseCache
from estimator.jobs.estimate import estimate
from estimator.jobs.planning.memory import loaded_of
from estimator.jobs.planning.plan import plan
from estimator.request.request import Request
from estimator.sizes.memory.peak import BaseInMemory
from estimator.sizes.memory.training import Training
from tests.hub.models import header_of, weights_file

FIXTURE = Path(__file__).parents[2] / "fixtures" / "quantized" / "recorded.jsonl"
ROWS = [row for row in map(json.loads, FIXTURE.read_text().splitlines()) if "note" not in row["truth"]]
EMBEDDINGS = "re:.*(embed_tokens|wte)"  # what PEFT adapts under every scheme
SQUARE = {
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "vocab_size": 128, "max_position_embeddings": 64, "model_type": "llama",
    "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16",
}  # fmt: skip
MIXTURE = SQUARE | {
    "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2,
}  # fmt: skip
FP8 = {"quant_method": "fp8", "weight_block_size": [32, 32]}
ROWWISE = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}
CACHE = {"num_bits": 8, "type": "float", "dynamic": False}
GROUPS = {
    "targets": ["Linear"],
    "weights": {"num_bits": 4, "group_size": 32, "symmetric": False},
    "input_activations": {"num_bits": 8},
}


def compressed(status: str = "compressed", **fields: object) -> dict:
    return {"quant_method": "compressed-tensors", "quantization_status": status, "config_groups": {}, **fields}


def base_of(folder: Path, config: dict) -> BaseInMemory:
    """Also plans, so that it answers whatever the base is."""
    (folder / "config.json").write_text(json.dumps(config))
    request = Request(model=str(folder), targets=EMBEDDINGS, offline=True)
    assert plan(request, Training(batch_size=1)).memory.device.lower > 0
    return loaded_of(estimate(request), BaseCache()).base


@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in ROWS])
def test_recorded_bases_are_planned_and_their_matrices_are_the_recorded_ones(tmp_path: Path, row: dict) -> None:
    file = weights_file(header_of(row["headers"]))
    (tmp_path / "model.safetensors").write_bytes(file.part(0, file.size))
    base = base_of(tmp_path, row["config"])
    assert base.packed == set(row["truth"]["features"])
    assert 0.25 <= base.packed_bytes <= 2


@pytest.mark.parametrize(
    ("quantization", "packed_bytes"),
    [
        pytest.param({"quant_method": "awq", "bits": 4, "group_size": 32}, 0.5 + 2 / 32 + 0.5 / 32, id="awq"),
        pytest.param({"quant_method": "eetq"}, 1 + 2 / 64, id="eetq: a half for each row"),
        pytest.param(FP8, 1 + 4 / 32**2, id="fp8: a float for each block"),
        pytest.param(compressed(config_groups={"0": ROWWISE}, ignore=["lm_head"]), 1 + 2 / 64, id="rows of fp8"),
        pytest.param(
            compressed(config_groups={"0": ROWWISE}, ignore=["lm_head"], kv_cache_scheme=CACHE),
            1 + 2 / 64,
            id="rows of fp8, attention with scales of its cache",
        ),
        pytest.param(compressed(kv_cache_scheme=CACHE), 0, id="scales of the cache alone"),
        pytest.param(
            compressed("frozen", config_groups={"0": GROUPS}, ignore=["lm_head"]),
            2 + 2 / 32 + 1 / 32 + (2 + 1) / 64**2,
            id="frozen: plain weights, scales and zero points of groups and of inputs",
        ),
    ],
)
def test_bytes_of_an_element_by_hand(tmp_path: Path, quantization: dict, packed_bytes: float) -> None:
    base = base_of(tmp_path, SQUARE | {"quantization_config": quantization})
    assert base.packed_bytes == pytest.approx(packed_bytes)
    assert len(base.packed) == (14 if packed_bytes else 0)


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize(("method", "index"), [("gptq", 4 / 64), ("auto-round", 0)])
def test_layers_of_buffers_alone_are_planned(tmp_path: Path, method: str, index: float, bits: int) -> None:
    """Scales and zeros of groups of 32, GPTQ's index for each row, and what the kernel looks bits up in."""
    quantization = {"quant_method": method, "bits": bits, "group_size": 32}
    base = base_of(tmp_path, SQUARE | {"quantization_config": quantization})
    least = bits / 8 + 2 / 32 + bits / 8 / 32 + index
    assert least <= base.packed_bytes <= least + 0.08


@pytest.mark.parametrize(
    ("quantization", "elements"),
    [
        pytest.param(FP8, 0, id="packed themselves"),
        pytest.param({"quant_method": "bitsandbytes", "load_in_8bit": True}, 2 * 4 * 3 * 64 * 64, id="left alone"),
    ],
)
def test_only_experts_that_are_left_alone_might_be_smaller(tmp_path: Path, quantization: dict, elements: int) -> None:
    assert base_of(tmp_path, MIXTURE | {"quantization_config": quantization}).expert_elements == elements
