"""The fields that a config class would set, by facts made up for the test."""

from __future__ import annotations

import pytest

from estimator.architecture.config_fields import check_nesting, check_region, lookup_for, unties, without_overrides
from estimator.architecture.formula import Unfit

FACTS = {
    "aliases": {"hidden_size": ["n_embd"], "experts": ["declared_experts", "experts"]},
    "rules": {
        "hidden_size": {"absent": {"is": 8}},
        "kinds": {"absent": {"is": ["linear", "full"]}, "renamed": {"mamba": "linear"}},
        "ends": {"absent": {"is": ["full"]}, "last": "full"},
        "every": {"absent": {"is": 4}},
        "filled": {"absent": {"is": [1, 0]}, "empty": True},
        "words": {"absent": {"is": None}, "split": "|"},
        "inner_config.depth": {"absent": {"is": 12}, "alone": {"is": 27}},
        "outer.inner.depth": {"absent": {"is": 12}, "alone": {"is": 27}},
        "outer.inner": {"absent": {"is": True}},
        "backbone": {"absent": {"choice": [["?shares", True], ["", None]]}},
        "backbone.every": {"absent": {"is": 2}},
        "inner_config.width": {"absent": {"is": 2}},
        "text_config.width": {"absent": {"is": 7}},
        "shares": {"absent": {"choice": [["?part.shares", True], ["", False]]}},
        "part.shares": {"absent": {"is": False}},
        "part_config.size": {"absent": {"is": 3}},
        "global_hidden_size": {"absent": {"is": 16}},
        "head": {"ignored": True, "absent": {"size": [["", "hidden_size//2"]]}},
    },
    "seen": {},
    "outside": {"inner_config": ["width"]},
    "replaced": ["text_config"],
    "unknown": ["layout"],
    "labels": 3,
}


@pytest.mark.parametrize(
    ("config", "path", "value"),
    [
        pytest.param({}, "hidden_size", 8, id="the class's default"),
        pytest.param({"n_embd": 6}, "hidden_size", 6, id="under its other name"),
        pytest.param({"n_embd": 6, "hidden_size": 6}, "hidden_size", 6, id="under both, alike"),
        pytest.param({"n_embd": 6, "hidden_size": 8}, "hidden_size", 6, id="under both, of which one is declared"),
        pytest.param({"declared_experts": 6, "experts": 8}, "experts", 8, id="under both, the other declared"),
        pytest.param({"declared_experts": 6}, "experts", 6, id="under the declared name alone"),
        pytest.param({"experts": 8}, "declared_experts", 8, id="asked for by its declared name"),
        pytest.param({"kinds": ["mamba", "full"]}, "kinds", ["linear", "full"], id="an older word for an element"),
        pytest.param(
            {"ends": ["linear", "linear"]}, "ends", ["linear", "full"], id="a last element that the class sets"
        ),
        pytest.param({"inner_config": {}}, "inner_config.depth", 12, id="a section that says nothing of the field"),
        pytest.param({}, "inner_config.depth", 27, id="a section that is left out"),
        pytest.param(
            {"width": 3}, "inner_config.depth", 27, id="a section that is left out but for a field at the top"
        ),
        pytest.param({"every": 3}, "every", 3, id="what is taken and not kept"),
        pytest.param({"head": 9}, "head", 4, id="what the class computes in any case"),
        pytest.param({"part": {"shares": True}}, "shares", True, id="what a section says where the whole is silent"),
        pytest.param(
            {"shares": False, "part": {"shares": True}}, "shares", True, id="a switch that the class turns on"
        ),
        pytest.param({"shares": False, "part": {}}, "shares", False, id="one that it leaves off"),
        pytest.param({"hidden_size": 6}, "n_embd", 6, id="asked for by its other name"),
        pytest.param({"filled": []}, "filled", [1, 0], id="an empty list that the class fills in"),
        pytest.param({"words": "up|down"}, "words", ["up", "down"], id="words in one text"),
        pytest.param({"width": 5}, "inner_config.width", 5, id="a section's field at the top, without the section"),
        pytest.param({"width": 5, "inner_config": {}}, "inner_config.width", 2, id="not where there is the section"),
        pytest.param({"text_config": {"width": 3}}, "text_config.width", 3, id="a section with no other beside it"),
        pytest.param(
            {"text_config": {"width": 3}, "text_config_dict": {}}, "text_config.width", 7, id="the other in its place"
        ),
        pytest.param({}, "num_labels", 3, id="labels by the class's default"),
        pytest.param({"id2label": {"0": "a"}}, "num_labels", 1, id="labels by their names"),
        pytest.param({"id2label": {"0": "a"}, "num_labels": 5}, "num_labels", 5, id="labels by their number"),
    ],
)
def test_a_field_is_as_the_config_class_would_have_it(config, path, value):
    assert lookup_for(config, FACTS)(path) == value


def test_a_section_in_a_section_that_is_left_out_alone_is_refused():
    with pytest.raises(Unfit, match=r"outer\.inner\.depth is missing"):
        lookup_for({"outer": {}}, FACTS)("outer.inner.depth")


@pytest.mark.parametrize(
    ("said", "field"),
    [
        pytest.param({"hidden_size": 8, "n_embd": None}, "hidden_size", id="null under its other name"),
        pytest.param({"hidden_size": None, "n_embd": 8}, "hidden_size", id="null under its own"),
        pytest.param({"hidden_size": 8, "n_embd": 6}, "head", id="what is worked out from it"),
        pytest.param({"n_embd": 6}, "head", id="what is worked out from its default"),
    ],
)
def test_two_names_of_a_field_of_which_one_is_not_known_to_win_are_refused(said, field):
    with pytest.raises(Unfit, match="n_embd"):
        lookup_for(said, FACTS)(field)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        pytest.param({"layout": [1]}, "layout", id="an older field that no formula explains"),
        pytest.param({"parts": [{"type": "1d"}]}, "parts", id="a list of objects"),
        pytest.param({"feature_layer": [-2, -5]}, "feature_layer", id="several layers in the place of one"),
        pytest.param(
            {"part_config": {"size": 3}, "part_config_dict": {"size": 4}}, "_dict", id="said twice, otherwise"
        ),
        pytest.param(
            {"part_config": {"size": 3}, "part_config_dict": {}}, "_dict", id="said once, overruled by defaults"
        ),
        pytest.param({"part_config_dict": {"size": 4}}, "_dict", id="said in the older place alone"),
        pytest.param(
            {"every": 3, "part": {"shares": True}}, "backbone is missing", id="a section that the class fills in"
        ),
        pytest.param(
            {"every": 3, "part": {"shares": True}, "backbone": None}, "backbone is null", id="a section of null"
        ),
        pytest.param({"outer": {"depth": 3}}, "outer.inner is missing", id="a field beside a section in a section"),
    ],
)
def test_a_field_of_unknown_effect_is_refused(config, named):
    with pytest.raises(Unfit, match=named):
        check_nesting(FACTS, config, lookup_for(config, FACTS))


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"layout": None, "limits": [0.0, {"__float__": "Infinity"}]}, id="numbers that JSON lacks"),
        pytest.param({"part_config": {"size": 3}, "part_config_dict": {"size": 3}}, id="said twice, alike"),
        pytest.param({"feature_layer": [-2]}, id="one layer in a list"),
        pytest.param({"every": 3}, id="a name of its own and of a section that the class does without"),
    ],
)
def test_what_decides_nothing_is_let_through(config):
    check_nesting(FACTS, config, lookup_for(config, FACTS))


TWO_KINDS = {"hidden_size": 8, "kinds": ["linear", "full", "linear", "full"]}


@pytest.mark.parametrize(
    ("overrides", "value"),
    [
        pytest.param({"1": {"hidden_size": 9}, "3": {"hidden_size": 9}}, 9, id="all layers of a kind have it"),
        pytest.param({"1": {"sliding_window": 9}, "3": {"sliding_window": 9}}, 8, id="they differ in no size"),
        pytest.param({}, 8, id="none has"),
        pytest.param(None, 8, id="null, which stands in the place of the field all the same"),
    ],
)
def test_what_layers_have_otherwise_is_the_field_that_stands_for_it(overrides, value):
    config = without_overrides({**TWO_KINDS, "per_layer_config": overrides}, FACTS)
    assert lookup_for(config, FACTS)("global_hidden_size") == value


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        pytest.param({"1": {"hidden_size": 9}, "3": {"hidden_size": 7}}, "hidden_size", id="each its own"),
        pytest.param({"1": {"hidden_size": 9}}, "hidden_size", id="not all of the kind"),
        pytest.param({"1": {"skip": ["mlp"]}, "3": {"skip": ["mlp"]}}, "skip", id="without a part"),
        pytest.param({"1": {"shares": True}, "3": {"shares": True}}, "shares", id="no field stands for it"),
        pytest.param([1], "skip", id="no object"),
        pytest.param(7, "skip", id="a number"),
        pytest.param([1, "x", {}], "skip", id="a list of anything"),
    ],
)
def test_layers_that_no_field_stands_for_are_refused(overrides, named):
    with pytest.raises(Unfit, match=named):
        without_overrides({**TWO_KINDS, "per_layer_config": overrides}, FACTS)


TWO_TIES = {
    "aliases": {},
    "rules": {"part.tie_word_embeddings": {"absent": {"is": True}}},
    "seen": {"tie_word_embeddings": []},
}


@pytest.mark.parametrize(
    ("config", "facts", "untied"),
    [
        pytest.param({"tie_word_embeddings": False, "part": {"tie_word_embeddings": False}}, TWO_TIES, True, id="both"),
        pytest.param({"tie_word_embeddings": False, "part": {}}, TWO_TIES, False, id="the part's default ties"),
        pytest.param({"part": {"tie_word_embeddings": False}}, TWO_TIES, False, id="the whole's default may tie"),
        pytest.param({"tie_word_embeddings": False}, FACTS, False, id="what a single one does, formulas say"),
        pytest.param({"tie_word_embeddings": False}, None, False, id="no formulas"),
    ],
)  # fmt: skip
def test_nothing_is_tied_where_every_switch_is_off(config, facts, untied):
    assert unties(config, facts) is untied


@pytest.mark.parametrize(
    ("values", "value", "is_known"),
    [
        pytest.param(["#", "null"], 7, True, id="any number"),
        pytest.param(["0"], 0, True, id="the only number that was seen"),
        pytest.param(["0"], 7, False, id="another number than that"),
        pytest.param(["false"], 0, False, id="a number for a switch"),
        pytest.param(["full", "sliding"], ["full", "sliding"], True, id="a list of known words"),
        pytest.param(["full"], ["full", "sliding"], False, id="a list with another word"),
    ],
)
def test_values_that_were_never_tried_are_refused(values, value, is_known):
    facts = {**FACTS, "seen": {"every": values}}
    if is_known:
        check_region(facts, lookup_for({"every": value}, facts))
    else:
        with pytest.raises(Unfit, match="not among the values that were tried"):
            check_region(facts, lookup_for({"every": value}, facts))
