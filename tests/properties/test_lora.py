"""What holds of every LoRA config: more rank never shrinks, exclusions never grow, parts sum to the whole."""

from __future__ import annotations

from math import prod

import pytest

from estimator.dtypes import BITS
from estimator.errors import LoraSizeError
from estimator.lora import layers_alone
from estimator.lora.adapt import Adaptation, adapt
from estimator.lora.index import index_of
from estimator.lora.inject import injected, prepared
from estimator.lora.trained_beside import with_all_beside
from estimator.request.lora_config import from_mapping
from estimator.sizes.adapter_file import adapter_file_bytes
from tests.lora.small import MOE, TIED, TREE

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, assume, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

UNHURRIED = settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
TREES = st.sampled_from((TREE, TIED, MOE))
NAMES = (
    "q_proj",
    "v_proj",
    "embed_tokens",
    "lm_head",
    "layers.0.q_proj",
    "model.layers.1.v_proj",
    "down_proj",
    "nothing",
)
TARGETS = st.lists(st.sampled_from(NAMES), min_size=1, unique=True)
RANKS = st.integers(1, 40)
CONFIGS = st.fixed_dictionaries(
    {"target_modules": st.one_of(TARGETS, st.just("all-linear"), st.just(r".*\.(q|v)_proj")), "r": RANKS},
    optional={
        "bias": st.sampled_from(("all", "lora_only")),
        "use_dora": st.booleans(),
        "modules_to_save": st.lists(st.sampled_from(("lm_head", "norm", "embed_tokens", "0")), max_size=2),
        "trainable_token_indices": st.lists(st.integers(0, 100), max_size=3),
        "rank_pattern": st.dictionaries(st.sampled_from(("q_proj", ".*1.*", "v_proj")), RANKS, max_size=2),
        "ensure_weight_tying": st.booleans(),
        "exclude_modules": st.lists(st.sampled_from(NAMES), max_size=2),
    },
)


def answered(tree, config) -> Adaptation | None:
    """None where it is refused."""
    try:
        return adapt(tree, from_mapping(config))
    except LoraSizeError:
        return None


def accepted(tree, config) -> Adaptation:
    answer = answered(tree, config)
    assume(answer is not None)
    return answer


def facts(answer: Adaptation | None):
    """All of an answer but its notes and the config that it repeats; None of a refusal."""
    return answer and answer._replace(
        notes=(), config={}, modules=tuple(sorted(answer.modules)), tensors=tuple(sorted(answer.tensors))
    )


@UNHURRIED
@given(TREES, CONFIGS, RANKS)
def test_a_larger_rank_never_shrinks_anything(tree, config, more):
    small, large = accepted(tree, config), accepted(tree, {**config, "r": config["r"] + more})
    assert small.trainable_parameters <= large.trainable_parameters
    assert file_bytes(small) <= file_bytes(large)


@UNHURRIED
@given(TREES, TARGETS, RANKS)
def test_twice_the_rank_is_twice_the_matrices(tree, targets, rank):
    once, twice = (accepted(tree, {"target_modules": targets, "r": r}) for r in (rank, 2 * rank))
    assert twice.trainable_parameters == 2 * once.trainable_parameters


@UNHURRIED
@given(TREES, CONFIGS, st.sampled_from(NAMES))
def test_an_exclusion_never_grows_anything(tree, config, name):
    assume("modules_to_save" not in config)  # a targeted module can be saved once it is excluded
    all_, fewer = (
        accepted(tree, {**config, "exclude_modules": []}),
        answered(tree, {**config, "exclude_modules": [name]}),
    )
    if fewer is not None:
        assert fewer.trainable_parameters <= all_.trainable_parameters
        assert len(fewer.modules) <= len(all_.modules)


@UNHURRIED
@given(TREES, CONFIGS)
def test_empty_fields_are_absent_fields(tree, config):
    empty = {
        "rank_pattern": {},
        "alpha_pattern": {},
        "exclude_modules": [],
        "layers_to_transform": None,
        "bias": "none",
    }
    there = {name: value for name, value in empty.items() if name not in config}
    assert facts(answered(tree, {**there, **config})) == facts(answered(tree, config))


@UNHURRIED
@given(TREES, CONFIGS, TARGETS, st.randoms(use_true_random=False))
def test_order_and_repetition_of_names_decide_nothing(tree, config, targets, random):
    shuffled = [*targets, random.choice(targets)]
    random.shuffle(shuffled)
    first, second = ({**config, "target_modules": names} for names in (targets, shuffled))
    assert facts(answered(tree, first)) == facts(answered(tree, second))


@UNHURRIED
@given(RANKS, st.sampled_from(("q_proj", "v_proj")))
def test_layers_apart_sum_to_all_layers(rank, name):
    counts = [
        accepted(TREE, {"target_modules": [name], "r": rank, "layers_to_transform": layers}).trainable_parameters
        for layers in ([0], [1], [0, 1])
    ]
    assert counts[0] + counts[1] == counts[2]
    assert counts[2] == accepted(TREE, {"target_modules": [name], "r": rank}).trainable_parameters


@UNHURRIED
@given(TREES, CONFIGS)
def test_the_parts_sum_to_the_whole(tree, config):
    answer = accepted(tree, config)
    assert sum(answer.parameters_by_part.values()) == answer.trainable_parameters
    assert answer.trainable_parameters <= answer.all_parameters
    assert answer.all_parameters - answer.added_parameters == index_of(tree).all_parameters()
    assert all(module.parameters >= 0 for module in answer.modules)


@UNHURRIED
@given(TREES, CONFIGS)
def test_the_file_is_its_header_and_its_tensors(tree, config):
    answer = accepted(tree, config)
    size, header = adapter_file_bytes(answer.tensors)[:2]
    data = sum(prod(tensor.shape) * BITS[tensor.dtype] // 8 for tensor in answer.tensors)
    assert size == 8 + header + data
    assert len({tensor.name for tensor in answer.tensors}) == len(answer.tensors)


@UNHURRIED
@given(TREES, CONFIGS)
def test_a_dtype_changes_bytes_and_no_count(tree, config):
    usual, base = (adapt_as(tree, config, dtype) for dtype in (None, "base"))
    assert usual.trainable_parameters == base.trainable_parameters
    assert {tensor.name: tensor.shape for tensor in usual.tensors} == {t.name: t.shape for t in base.tensors}
    assert file_bytes(base) <= file_bytes(usual)


@UNHURRIED
@given(TREES, TARGETS, RANKS, st.booleans(), st.sampled_from((None, "base", "F16")))
def test_layers_alone_are_what_playing_it_through_makes_of_them(tree, targets, rank, dora, dtype):
    config = from_mapping({"target_modules": targets, "r": rank, "use_dora": dora})
    index = index_of(tree)
    request = prepared(index, config)
    try:
        layers = injected(request).layers
    except LoraSizeError:
        assume(False)
    fast = layers_alone.with_layers_alone(index, layers, dtype, with_embeddings=False)
    slow = with_all_beside(request, layers, dtype, with_embeddings=False, targeted=False)
    assert (fast.trained, fast.all_parameters) == (slow.trained, slow.all_parameters)
    assert sorted(fast.tensors) == sorted(slow.tensors)
    assert sorted(fast.modules) == sorted(slow.modules)


def adapt_as(tree, config, dtype):
    assume(answered(tree, config) is not None)
    return adapt(tree, from_mapping(config), adapter_dtype=dtype)


def file_bytes(answer: Adaptation) -> int:
    return adapter_file_bytes(answer.tensors)[0]
