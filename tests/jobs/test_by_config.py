"""What config.json says of the layers that headers leave open."""

from __future__ import annotations

import pytest

from estimator.architecture.from_config import from_config
from estimator.jobs.by_config import features_of, with_sized

TEXT = {"model_type": "llama", "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 1,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "vocab_size": 101}  # fmt: skip
VISION = {"model_type": "clip_vision_model", "hidden_size": 36, "intermediate_size": 52, "num_hidden_layers": 1,
          "num_attention_heads": 4, "image_size": 16, "patch_size": 4, "projection_dim": 30}  # fmt: skip
LLAVA = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "text_config": TEXT,
         "vision_config": VISION}  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "features"),
    [
        pytest.param("language_model.model.layers.0.self_attn.v_proj", (20, 48), id="as the file has it"),
        pytest.param("model.language_model.layers.0.self_attn.v_proj", (20, 48), id="as the model has it"),
        pytest.param("multi_modal_projector.linear_1", (48, 36), id="between the towers"),
        pytest.param("language_model.lm_head", (101, 48), id="the head"),
        pytest.param("model.layers.0.self_attn.r_proj", None, id="no such layer"),
    ],
)
def test_features_of_layers_under_their_stored_names(layer, features):
    assert features_of(LLAVA, [layer]).get(layer) == features


def test_a_config_without_formulas_says_nothing():
    assert features_of({"model_type": "novel"}, ["model.q_proj"]) == {}


T5 = {"model_type": "t5", "architectures": ["T5ForTokenClassification"], "d_model": 48, "d_kv": 8, "d_ff": 80,
      "num_layers": 1, "num_heads": 6, "vocab_size": 101}  # fmt: skip


@pytest.mark.parametrize(
    "apart",
    [
        pytest.param((), id="as the class ties them"),
        pytest.param(("encoder.embed_tokens.weight",), id="the file holds other values"),
    ],
)
def test_parts_made_fresh_leave_the_ties_of_what_is_stored(apart):
    whole = from_config(T5, task="SEQ_2_SEQ_LM")
    stored = whole._replace(
        modules=tuple(module for module in whole.modules if not module.name.startswith(("decoder", "lm_head"))),
        tied={name: root for name, root in whole.tied.items() if name.startswith("encoder") and name not in apart},
    )
    assert with_sized(stored, T5, "SEQ_2_SEQ_LM", None).tied.keys() == whole.tied.keys() - set(apart)
