"""Documents as JSON text."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from estimator.report.as_json import as_json

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_DOCUMENTS = st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)


@given(_DOCUMENTS)
def test_the_text_says_what_the_document_holds(document: object) -> None:
    assert json.loads(as_json(document)) == document


def test_an_element_of_a_list_is_a_line() -> None:
    modules = [{"name": "q_proj", "rank": 8}, {"name": "v_proj", "rank": 8}]
    assert as_json({"adapter": {"modules": modules, "names": ["q", "v"]}, "notes": []}).splitlines() == [
        "{",
        '  "adapter": {',
        '    "modules": [',
        '      {"name": "q_proj", "rank": 8},',
        '      {"name": "v_proj", "rank": 8}',
        "    ],",
        '    "names": ["q", "v"]',
        "  },",
        '  "notes": []',
        "}",
    ]
