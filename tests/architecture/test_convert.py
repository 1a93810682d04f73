"""Shapes through transformers 5.23.0's conversion operations (core_model_loading.py); results by hand."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from estimator.architecture.convert import converted
from estimator.architecture.rename import read_transform
from estimator.errors import MalformedHeaderError


def transform(sources, targets, *operations):
    return read_transform(0, ["convert", sources, targets, list(operations)])


MERGE = ["MergeModulelist", {"dim": 0}]
GATE_UP = transform(["e.*.gate", "e.*.up"], ["e.gate_up"], MERGE, ["Concatenate", {"dim": 1}])


@pytest.mark.parametrize(
    ("rule", "name", "shapes", "expected"),
    [
        pytest.param(
            GATE_UP,
            "m.e.gate_up",
            {"e.*.gate": [(5, 3)] * 4, "e.*.up": [(5, 3)] * 4},
            {"m.e.gate_up": (4, 10, 3)},
            id="four experts' gate and up: stacked, then joined",
        ),
        pytest.param(
            transform(["qkv"], ["q", "k", "v"], ["Chunk", {"dim": 0}]),
            "m.q.weight",
            {"qkv": [(12, 4)]},
            {"m.q.weight": (4, 4), "m.k.weight": (4, 4), "m.v.weight": (4, 4)},
            id="one into three",
        ),
        pytest.param(
            transform(["w"], ["e.*.w"], ["SplitModulelist", {"dim": 0}]),
            "e.0.w",
            {"w": [(2, 3, 4)]},
            {"e.0.w": (3, 4), "e.1.w": (3, 4)},
            id="a stack taken apart",
        ),
        pytest.param(
            transform(
                ["e.*.gate", "e.*.up"],
                ["t.gate_up", "v.gate_up"],
                ["ErnieFuseAndSplitTextVisionExperts", {"stack_dim": 0, "concat_dim": 1}],
            ),
            "m.t.gate_up",
            {"e.*.gate": [(5, 3)] * 4 + [(2, 3)] * 4, "e.*.up": [(5, 3)] * 4 + [(2, 3)] * 4},
            {"m.t.gate_up": (4, 10, 3), "m.v.gate_up": (4, 4, 3)},
            id="experts of text and of vision in one list",
        ),
        pytest.param(
            transform(["w", "scale", "amax", "denominator"], ["e"], ["Inkling2LoopDequantizeExperts", {}]),
            "m.e",
            {"w": [(4, 6, 16)], "scale": [(4, 6, 2)], "amax": [(4,)], "denominator": [()]},
            {"m.e": (4, 6, 32)},
            id="experts of two numbers a byte",
        ),
        pytest.param(
            transform(["w", "scale", "amax", "denominator"], ["e"], ["Inkling2LoopDequantizeExperts", {}]),
            "m.e",
            {"w": [(4, 6, 32)], "scale": [(4, 6, 1)]},
            {"m.e": (4, 6, 32)},
            id="experts of one number a byte",
        ),
        pytest.param(
            transform(["qm", "kv"], ["query"], ["Inkling2LoopMergeMessageQueries", {}]),
            "m.query",
            {"qm": [(6, 8)], "kv": [(6, 8)]},
            {"m.query": (3, 4, 8)},
            id="four queries of each of three layers",
        ),
        pytest.param(
            transform(["w"], ["v"], ["Transpose", {"dim0": 1, "dim1": 2}]),
            "v",
            {"w": [(2, 3, 4)]},
            {"v": (2, 4, 3)},
            id="transposed",
        ),
        pytest.param(
            transform(["w"], ["v"], ["Conv3dToLinear", {}]),
            "v",
            {"w": [(8, 3, 2, 4, 4)]},
            {"v": (8, 96)},
            id="patches as a Linear",
        ),
        pytest.param(
            transform(["w"], ["v"], ["Split", {"dim": 0}]),
            "v",
            {"w": [(8, 3)]},
            None,
            id="sizes that shapes do not tell",
        ),
    ],
)
def test_a_converter_gives_the_shapes_that_transformers_makes(rule, name, shapes, expected):
    assert converted(rule, name, shapes, lambda path: None) == expected


@pytest.mark.parametrize(
    "shapes",
    [
        pytest.param({"e.*.gate": [(5, 3)] * 4, "e.*.up": [(5, 3)] * 3}, id="an expert without its other half"),
        pytest.param({"e.*.gate": [(5, 3)] * 3 + [(6, 3)], "e.*.up": [(5, 3)] * 4}, id="an expert of another shape"),
        pytest.param({"e.*.gate": [(5, 3)] * 4, "e.*.up": [(5, 4)] * 4}, id="halves of two widths"),
    ],
)
def test_shapes_that_torch_cannot_join_are_refused(shapes):
    """torch.stack and torch.cat raise, and from_pretrained with them."""
    with pytest.raises(MalformedHeaderError, match="cannot make it"):
        converted(GATE_UP, "m.e.gate_up", shapes, lambda path: None)


TOLD_BY_SIZE = transform(
    ["up"], ["up"], ["Transpose", {"dim0": 1, "dim1": 2, "check_dims": True, "expected": [2, "hidden_size"]}]
)


@pytest.mark.parametrize(
    ("stored", "hidden_size", "expected"),
    [
        pytest.param((4, 6, 10), 10, {"e.up": (4, 6, 10)}, id="as the model has it"),
        pytest.param((4, 10, 6), 10, {"e.up": (4, 6, 10)}, id="the other way round"),
        pytest.param((4, 10, 10), 10, {"e.up": (4, 10, 10)}, id="square: either way the same shape"),
        pytest.param((4, 6, 10), 7, None, id="neither fits the config"),
        pytest.param((4, 6, 10), None, None, id="the config does not say"),
    ],
)
def test_a_transposition_that_only_sizes_can_tell(stored, hidden_size, expected):
    """`Transpose(check_dims=True)` asks the model; its shape is known by the field that one axis follows."""
    assert converted(TOLD_BY_SIZE, "e.up", {"up": [stored]}, {"hidden_size": hidden_size}.get) == expected


UNPADDED = transform(["lm_head.weight"], ["lm_head.weight"], ["Inkling2UnpadVocab", {}])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param({"unpadded_vocab_size": 101}, {"lm_head.weight": (101, 8)}, id="a text model's"),
        pytest.param(
            {"text_config": {"vocab_size": 128}, "text_config.unpadded_vocab_size": 101},
            {"lm_head.weight": (101, 8)},
            id="its section's",
        ),
        pytest.param({}, None, id="the config does not say"),
    ],
)
def test_rows_that_fill_a_vocabulary_up_are_dropped(config, expected):
    """transformers 5.24.0, Inkling2UnpadVocab."""
    assert converted(UNPADDED, "lm_head.weight", {"lm_head.weight": [(128, 8)]}, config.get) == expected


PERMUTED = transform(["qkv"], ["q_proj", "k_proj", "v_proj"], ["Chunk", {"dim": 0}], ["PermuteForRope", {}])
BOTH = {"vision_config": {"num_attention_heads": 5}, "num_attention_heads": 3}
TEXT_ALONE, UNSAID = {"num_attention_heads": 3}, {"vision_config": {"hidden_size": 64}, "num_attention_heads": 3}
OF_HEADS = [
    pytest.param(BOTH, 20, True, id="two halves of each of the vision section's heads"),
    pytest.param(BOTH, 12, False, id="of the text's heads alone"),
    pytest.param(TEXT_ALONE, 12, True, id="a model without such a section"),
    pytest.param(TEXT_ALONE, 20, False, id="no halves of its heads"),
]


@pytest.mark.parametrize(
    ("config", "rows", "fits"), [*OF_HEADS, pytest.param(UNSAID, 20, True, id="heads that the config does not say")]
)
def test_rows_that_are_permuted(config, rows, fits):
    def read(path):
        section, _, field = path.rpartition(".")
        return config.get(section, {}).get(field) if section else config.get(path)

    with nullcontext() if fits else pytest.raises(MalformedHeaderError, match="PermuteForRope cannot make it"):
        assert converted(PERMUTED, "a.q_proj", {"qkv": [(3 * rows, 4)]}, read)["a.v_proj"] == (rows, 4)


@pytest.mark.judges
@pytest.mark.parametrize(("config", "rows", "fits"), OF_HEADS)
def test_transformers_permutes_the_same(config, rows, fits):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers.core_model_loading import PermuteForRope

    said = SimpleNamespace(**{key: SimpleNamespace(**v) if isinstance(v, dict) else v for key, v in config.items()})
    permute = PermuteForRope(subconfig_key="vision_config")
    with nullcontext() if fits else pytest.raises(RuntimeError, match="invalid for input of size"):
        permute.convert({"wq": torch.zeros(rows, 4)}, ["wq"], ["q_proj"], said)
