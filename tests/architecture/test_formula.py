"""Sizes and conditions over config fields, as the generated file writes them."""

from __future__ import annotations

import pytest

from estimator.architecture.conditions import Place
from estimator.architecture.formula import Unfit, by_default, evaluate, met

FIELDS = {
    "a": 12,
    "b": 5,
    "ratio": 2.5,
    "sizes": [3, 7],
    "blocks": [[4, 5], [6]],
    "kinds": ["x", "y"],
    "period": 2,
    "none": None,
    "text_config.a": 4,
    "word": "w",
}


@pytest.mark.parametrize(
    ("formula", "size"),
    [
        pytest.param(7, 7, id="a number"),
        pytest.param("a", 12, id="a field"),
        pytest.param("text_config.a", 4, id="a nested field"),
        pytest.param("2*a+3", 27, id="products before sums"),
        pytest.param("2*(a+3)", 30, id="brackets"),
        pytest.param("a-b-1", 6, id="differences from the left"),
        pytest.param("a-(b-1)", 8, id="a difference of a difference"),
        pytest.param("a//b*b", 10, id="a whole quotient times a field"),
        pytest.param("b*(a//b)", 10, id="the same the other way round"),
        pytest.param("2**2**3", 256, id="powers from the right"),
        pytest.param("int(a*ratio)", 30, id="a ratio, cut off"),
        pytest.param("ceil(a/b)", 3, id="rounded up"),
        pytest.param("max(a,b)-min(a,b)", 7, id="the larger and the smaller"),
        pytest.param("sizes[#]", 7, id="the element at the layer's index"),
        pytest.param("sizes[^]", 3, id="the element at the outer index"),
        pytest.param("sizes[#-1]", 3, id="the element before"),
        pytest.param("sizes[-1]", 7, id="the last element"),
        pytest.param("sizes[]", 2, id="a list's length"),
        pytest.param("sum(sizes)", 10, id="a list's sum"),
        pytest.param("2**#*a", 24, id="the index"),
        pytest.param("blocks[^][#]", 5, id="the element of a list in a list"),
        pytest.param("blocks[1][]", 1, id="the length of a list in a list"),
        pytest.param("sum(blocks[0])", 9, id="its sum"),
        pytest.param("prod(sizes)", 21, id="a list's product"),
        pytest.param("int(log2(a))", 3, id="a logarithm"),
        pytest.param("blocks[^][#//2+1]", 5, id="beside half the index"),
        pytest.param("^^+a", 13, id="the index around the outer one"),
    ],
)
def test_a_formula_gives_the_size(formula, size):
    assert evaluate(formula, FIELDS.__getitem__, Place(1, 2, False, Place(0, 3, False, Place(1, 2)))) == size


@pytest.mark.parametrize(
    "formula",
    [
        pytest.param("kinds", id="a list where a number belongs"),
        pytest.param("word", id="a text"),
        pytest.param("none*2", id="null"),
        pytest.param("a//#", id="by zero"),
        pytest.param("b-a", id="negative"),
        pytest.param("a/b", id="no whole number"),
        pytest.param("sizes[#-1]", id="before the first element"),
        pytest.param("sizes[5]", id="behind the last element"),
        pytest.param("a**a**a", id="too large a number"),
        pytest.param("a b", id="two names side by side"),
        pytest.param("?", id="no formula is known"),
    ],
)
def test_what_is_no_size_is_refused(formula):
    with pytest.raises(Unfit):
        evaluate(formula, FIELDS.__getitem__, Place(0, 2))


@pytest.mark.parametrize(
    ("condition", "index", "holds"),
    [
        pytest.param("((#+1)%period==0)", 1, True, id="every second layer from the second"),
        pytest.param("((#+1)%period==0)", 2, False, id="not the third"),
        pytest.param("in sizes", 3, True, id="listed"),
        pytest.param("out sizes & (#>=b)", 6, True, id="both"),
        pytest.param("(#>=b) / has kinds y", 0, True, id="either"),
        pytest.param("has kinds z", 0, False, id="no layer is of the kind"),
        pytest.param("(a!=b)", 0, True, id="two sizes differ"),
        pytest.param("word=w|v", 0, True, id="a text is one of"),
        pytest.param("(none==2)", 0, False, id="null is no number"),
        pytest.param("(none!=2)", 0, True, id="null differs from every number"),
        pytest.param("(none<2) & ?none", 0, False, id="one part that fails decides, whatever the other says"),
        pytest.param("(none<2) / ?word", 0, True, id="one part that holds decides"),
    ],
)
def test_a_condition_is_met_where_fields_and_index_say_so(condition, index, holds):
    assert met(condition, FIELDS.__getitem__, Place(index, 4)) is holds


@pytest.mark.parametrize("condition", ["(none<2)", "(none<2) & ?word", "(none<2) / ?none"])
def test_what_null_leaves_open_is_refused(condition):
    with pytest.raises(Unfit):
        met(condition, FIELDS.__getitem__, Place())


SPELT = {"letters": "word", "map": {"w": "x", "v": "y"}}
NUMBERED = {"letters": "sizes", "map": {"3": "x"}, "most": "b-4"}


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        pytest.param({"is": None}, None, id="always the same"),
        pytest.param({"size": [["(b>9)", 1], ["", "a//b"]]}, 2, id="a size"),
        pytest.param({"choice": [["word=w", "x"], ["", "y"]]}, "x", id="one of several"),
        pytest.param({"length": 3, "items": [["(#%2==0)", "x"], ["", "y"]]}, ["x", "y", "x"], id="a list"),
        pytest.param({"length": "b", "where": "(#>=3)"}, [3, 4], id="the layers that a condition picks"),
        pytest.param(SPELT, ["x"], id="a list that a text spells"),
        pytest.param(NUMBERED, ["x"], id="a list that a longer list spells"),
        pytest.param({"either": [["?none", SPELT], ["", {"is": ["z"]}]]}, ["z"], id="where there is no text"),
    ],
)
def test_a_missing_field_has_the_value_that_the_class_works_out(rule, value):
    assert by_default(rule, FIELDS.__getitem__) == value


@pytest.mark.parametrize("text", ["wxw", None, 3])
def test_a_letter_that_is_not_known_is_refused(text):
    with pytest.raises(Unfit):
        by_default(SPELT, {"word": text}.__getitem__)
