"""Is the file what the generator writes today? A part of the classes, where the stated release is installed."""

from __future__ import annotations

import pytest

from estimator.architecture.facts import class_facts, stamp

PART = ["LlamaForCausalLM", "BertForMaskedLM", "GPT2LMHeadModel", "T5ForConditionalGeneration", "MixtralForCausalLM"]


@pytest.mark.judges
@pytest.mark.parametrize("name", PART)
def test_the_file_is_not_stale(name):
    transformers = pytest.importorskip("transformers")
    if f"transformers {transformers.__version__}," not in stamp():
        pytest.skip(f"the facts state another release: {stamp()}")
    from estimator.architecture.survey import survey

    assert survey(name).structure == class_facts(name).root
