from __future__ import annotations

import pytest

from estimator.architecture.conditions import Place, holds, lookup_in, under

CONFIG = {"bias": True, "act": "silu", "n": 2, "kinds": ["full", "sliding"], "text_config": {"rank": None}}
CONFIG |= {"depth": 9, "num_layers": 2}
LOOKUP = lookup_in(CONFIG, {"text_config.rank": 4, "absent": False}, {"layers": "n", "depth": "num_layers"})
OUTER = Place(1, 3, first=False)


@pytest.mark.parametrize(
    ("condition", "place", "true"),
    [
        pytest.param("", Place(), True, id="always"),
        pytest.param("?bias", Place(), True, id="truthy"),
        pytest.param("!absent", Place(), True, id="default is falsy"),
        pytest.param("?text_config.rank", Place(), True, id="null counts as absent, the default stands in"),
        pytest.param("act=gelu|silu", Place(), True, id="one of"),
        pytest.param("act~gelu|silu", Place(), False, id="none of"),
        pytest.param("layers<", Place(1, 3), True, id="below, by an alias"),
        pytest.param("depth<", Place(2, 3), False, id="below, by the name that wins"),
        pytest.param("layers>=", Place(2, 3), True, id="at or above"),
        pytest.param("kinds@sliding", Place(1, 2), True, id="the list's element here"),
        pytest.param("kinds@sliding", Place(5, 6), False, id="beyond the list"),
        pytest.param("kinds@@sliding", Place(5, 6), True, id="the list said over and over"),
        pytest.param("#=0|2", Place(2, 3), True, id="index"),
        pytest.param("#%2=1", Place(2, 3), False, id="remainder"),
        pytest.param("#last", Place(2, 3), True, id="last"),
        pytest.param("#!first", OUTER.inner(0, 2), True, id="an outer index is not 0"),
        pytest.param("^#=1", OUTER.inner(0, 2), True, id="the outer index"),
        pytest.param("?bias & #=0", Place(1, 2), False, id="both"),
        pytest.param("!bias / #=1", Place(1, 2), True, id="either"),
    ],
)
def test_a_condition_holds_where_its_config_and_place_say_so(condition, place, true):
    assert holds(condition, LOOKUP, place) is true


@pytest.mark.parametrize(
    ("condition", "moved"),
    [
        pytest.param("", "", id="always"),
        pytest.param("?bias", "?text.bias", id="truthy"),
        pytest.param("act=gelu|silu", "text.act=gelu|silu", id="one of"),
        pytest.param("^^kinds@full", "^^text.kinds@full", id="two lists out"),
        pytest.param("layers-shared<", "text.layers-text.shared<", id="a difference of two"),
        pytest.param("!bias & #=0 / n<", "!text.bias & #=0 / text.n<", id="joined, places as they are"),
        pytest.param("n:layers+1", "n:text.layers+1", id="a count by a field"),
        pytest.param("n:12", "n:12", id="a fixed count"),
        pytest.param("+sibling", "+sibling", id="where a sibling is"),
        pytest.param("!", "!", id="where nothing else holds"),
    ],
)
def test_under_a_section(condition, moved):
    assert under(condition, "text") == moved
