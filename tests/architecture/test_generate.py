"""Is the file what the generator writes today? A part of the classes, where the stated release is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import pytest

from estimator.architecture.facts import line, stamp, whole_text
from estimator.architecture.surveying.surveys import part_of

PART = [
    pytest.param("LlamaForCausalLM", id="a language model"),
    pytest.param("BertForMaskedLM", id="an encoder with a head"),
    pytest.param("GPT2LMHeadModel", id="Conv1D"),
    pytest.param("T5ForConditionalGeneration", id="encoder and decoder, shared embeddings"),
    pytest.param("MixtralForCausalLM", id="experts merged"),
    pytest.param("DeepseekV3ForCausalLM", id="first layers dense, low ranks"),
    pytest.param("PaliGemmaForConditionalGeneration", id="towers that the config chooses"),
    pytest.param("DebertaV2Model", id="a switch that only code names"),
    pytest.param("Wav2Vec2Model", id="convolutions, weight norm"),
    pytest.param("ViTForImageClassification", id="vision"),
    pytest.param("NllbMoeModel", id="experts by name, more or fewer"),
    pytest.param("CLIPTextModelWithProjection", id="a class that no Auto mapping names"),
]


@pytest.fixture(scope="module")
def differences():
    """The generator's comparison, where the release that the file states is installed."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    if f"transformers {transformers.__version__}," not in stamp():
        pytest.skip(f"the facts state another release: {stamp()}")
    from estimator.architecture.generate import differences

    return differences


@pytest.mark.judges
@pytest.mark.parametrize("name", PART)
def test_the_file_says_what_is_built(name, differences):
    assert differences(name) == []


@pytest.mark.judges
def test_a_class_surveyed_twice_is_the_same():
    pytest.importorskip("transformers")
    from estimator.architecture.surveying.survey import survey

    assert survey("BertModel") == survey("BertModel")


def test_the_file_states_the_release_that_is_installed():
    """Where it fails: python -m estimator.architecture.generate."""
    try:
        installed = version("transformers")
    except PackageNotFoundError:
        pytest.skip("transformers is not installed")
    assert f" transformers {installed}," in stamp()


@pytest.mark.judges
def test_a_release_without_newer_classes_adds_none(differences):
    """And every line of the file is as it is written today."""
    from estimator.architecture.generate import generate

    assert generate(newer=True) == whole_text()


@pytest.mark.judges
def test_no_class_of_the_mappings_is_left_out():
    pytest.importorskip("transformers")
    from estimator.architecture.surveying.model_classes import classes

    refused = line("$refused")
    assert [name for name in classes() if line(f"={name}") is None and name not in refused] == []


@pytest.mark.parametrize("count", [1, 3, 4])
def test_parts_hold_every_class_once(count):
    names = [f"Model{number}" for number in range(10)]
    parts = [part_of(names, f"{number + 1}/{count}") for number in range(count)]
    assert sorted(name for part in parts for name in part) == names


@pytest.mark.parametrize("part", ["0/4", "5/4", "2", "a/b", ""])
def test_what_is_no_part(part):
    with pytest.raises(ValueError, match="written as 2/4"):
        part_of(["Model"], part)
