"""What source code says of the config fields that it branches on."""

from __future__ import annotations

import pytest

from estimator.architecture.surveying.source_hints import hints_in

SOURCE = """
NORMS = {"rms": 1, "layer": 2}

class Model:
    def __init__(self, config):
        self.kinds = getattr(config, "norm_kinds", "none").split("|")
        if "layer_norm" in self.kinds:
            pass
        self.norm = NORMS[config.norm_type]
        width = config.width if config.use_width else 0
        self.parts = [part for part in config.parts if config.kind == "full"]
        self.size = config.size
"""
HINTS = hints_in(SOURCE)


@pytest.mark.parametrize(
    ("field", "texts"),
    [
        pytest.param("kinds", ("layer_norm",), id="looked for in a field"),
        pytest.param("kind", ("full",), id="compared with a field"),
        pytest.param("norm_type", ("rms", "layer"), id="keys of the table that a field looks up"),
        pytest.param("size", (), id="a plain number"),
    ],
)
def test_texts_that_sources_compare_a_field_with_are_found(field, texts):
    assert HINTS.texts.get(field, ()) == texts


def test_switches_and_what_is_asked_for():
    assert {"use_width", "kind", "kinds"} <= HINTS.switches
    assert "size" not in HINTS.switches
    assert HINTS.asked == {"norm_kinds"}
