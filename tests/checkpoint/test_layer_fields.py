"""Which fields of quantization_config hold for a single layer."""

from __future__ import annotations

import pytest

from estimator.checkpoint.layer_fields import auto_round_by_layer, compressed_by_layer, gptq_by_layer, mlx_by_layer

NAMES = ("layers.0.q_proj", "layers.0.down_proj", "layers.1.q_proj")


def group(bits, *targets):
    return {"targets": list(targets), "weights": {"num_bits": bits}}


@pytest.mark.parametrize(
    ("groups", "bits"),
    [
        pytest.param([group(4, "Linear")], dict.fromkeys(NAMES, 4), id="the class"),
        pytest.param(
            [group(4, "Linear"), group(8, "re:.*down_proj")],
            dict(zip(NAMES, (4, 8, 4), strict=True)),
            id="a pattern first",
        ),
        pytest.param(
            [group(4, "re:.*q_proj"), group(8, "layers.1.q_proj")], {NAMES[0]: 4, NAMES[2]: 8}, id="a name before that"
        ),
        pytest.param(
            [group(4, "re:.*q"), group(8, "re:.*")], dict(zip(NAMES, (8, 8, 8), strict=True)), id="patterns by alphabet"
        ),
        pytest.param([group(4, "Linear"), group(8, "Linear")], dict.fromkeys(NAMES, 8), id="the last of two"),
        pytest.param(
            [group(4, "Linear"), {"targets": ["re:.*q_proj"], "weights": None}], {NAMES[1]: 4}, id="activations alone"
        ),
    ],
)
def test_groups_of_compressed_tensors(groups, bits):
    """By compressed-tensors 0.20: apply_quantization_config, match_targets, _scheme_from_targets."""
    fields = {"config_groups": {str(at): one for at, one in enumerate(groups)}}
    assert {name: own["num_bits"] for name, own in compressed_by_layer(fields, NAMES).items()} == bits


@pytest.mark.parametrize(
    ("by_layer", "fields", "bits"),
    [
        pytest.param(
            gptq_by_layer, {"dynamic": {r"layers\.1": {"bits": 8}, "layers": {"group_size": 32}}},
            dict(zip(NAMES, (4, 4, 8), strict=True)), id="gptq: the first pattern that fits",
        ),
        pytest.param(gptq_by_layer, {"dynamic": {"-:.*down": {}}}, {NAMES[1]: None}, id="gptq: left out"),
        pytest.param(gptq_by_layer, {"dynamic": {"+:.*down": {"bits": 2}}}, {NAMES[1]: 2}, id="gptq: a plus"),
        pytest.param(gptq_by_layer, {"dynamic": {"q_proj": {"bits": 8}}}, {}, id="gptq: from the name's start"),
        pytest.param(
            auto_round_by_layer, {"extra_config": {NAMES[0]: {"bits": 16}, NAMES[1]: {"bits": None}}},
            {NAMES[0]: None, NAMES[1]: 4}, id="auto-round: 16 bits, and none said",
        ),
        pytest.param(
            auto_round_by_layer, {"extra_config": {"q_proj": {"bits": 8}, NAMES[0]: {"bits": 2}}},
            {NAMES[0]: 2, NAMES[2]: 8}, id="auto-round: a pattern anywhere, after names",
        ),
        pytest.param(
            auto_round_by_layer, {"dynamic": {"-:down": {}, "+:q_proj": {"bits": 8}, "layers": {"bits": 2}}},
            {NAMES[0]: 8, NAMES[1]: None, NAMES[2]: 8}, id="auto-round: dynamic, with its signs alone",
        ),
        pytest.param(
            auto_round_by_layer, {"modules_in_block_to_quantize": [["down"], [r"1\.q"]]},
            {NAMES[0]: None}, id="auto-round: what of a block is quantised",
        ),
        pytest.param(
            auto_round_by_layer, {"modules_to_not_convert": ["q_proj"], "extra_config": {NAMES[0]: {"bits": 8}}},
            {NAMES[0]: None, NAMES[2]: None}, id="auto-round: what is not converted",
        ),
        pytest.param(
            mlx_by_layer, {NAMES[0]: {"bits": 6}, NAMES[1]: False, NAMES[2]: True},
            {NAMES[0]: 6, NAMES[1]: None}, id="mlx: false, and true",
        ),
    ],
)  # fmt: skip
def test_bits_of_a_layer(by_layer, fields, bits):
    found = by_layer({"bits": 4, **fields}, NAMES)
    assert {name: own and own["bits"] for name, own in found.items()} == bits
