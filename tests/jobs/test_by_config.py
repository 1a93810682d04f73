"""What config.json says of the layers that headers leave open."""

from __future__ import annotations

import pytest

from estimator.architecture.from_config import from_config
from estimator.architecture.module import parameter_shapes
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.jobs.by_config import as_built, features_of
from estimator.jobs.headers import tree_of_headers
from estimator.notes import Note

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
    assert as_built(stored, T5, "SEQ_2_SEQ_LM", None).tied.keys() == whole.tied.keys() - set(apart)


TEXT_HEAD = {"model_type": "flaubert", "architectures": ["FlaubertModel"], "emb_dim": 48, "n_layers": 1, "n_heads": 4,
             "n_words": 101, "summary_use_proj": True, "summary_proj_to_labels": True}  # fmt: skip
DECODER = {"model_type": "marian", "architectures": ["MarianForCausalLM"], "d_model": 48, "encoder_layers": 1,
           "decoder_layers": 1, "vocab_size": 101, "pad_token_id": 0}  # fmt: skip


def test_a_fresh_head_is_of_its_class_kind_though_nothing_of_it_is_stored():
    whole = from_config(TEXT_HEAD, task="SEQ_CLS")
    blank = {"kind": "other", "cls": "Identity", "parameters": ()}
    stored = whole._replace(
        modules=tuple(m._replace(**blank) if m.name == "sequence_summary.summary" else m for m in whole.modules)
    )
    assert as_built(stored, TEXT_HEAD, "SEQ_CLS", None).modules == whole.modules


def test_an_embedding_that_only_the_classs_own_source_holds_is_tied():
    whole = from_config(DECODER, task="FEATURE_EXTRACTION")
    stored = whole._replace(modules=tuple(m for m in whole.modules if m.name != "shared"), tied={})
    assert as_built(stored, DECODER, "FEATURE_EXTRACTION", None).tied == whole.tied


@pytest.mark.parametrize(
    ("stored", "width"),
    [
        pytest.param([], 48, id="made fresh: the class's own"),
        pytest.param(["sequence_summary.summary.weight"], 50, id="stored: as the file has it"),
    ],
)
def test_the_shape_of_a_head(stored, width):
    whole = from_config(TEXT_HEAD, task="SEQ_CLS")
    modules = {m.name: m for m in whole.modules}
    head = modules["sequence_summary.summary"]
    odd = tuple(p._replace(shape=(2, 50)) if p.name == "weight" else p for p in head.parameters)
    guessed = whole._replace(modules=tuple({**modules, head.name: head._replace(parameters=odd)}.values()))
    found = {m.name: m for m in as_built(guessed, TEXT_HEAD, "SEQ_CLS", None, stored).modules}
    assert found[head.name].parameters[0].shape == (2, width)


def test_another_class_without_formulas_is_inferred():
    tree = from_config(DECODER)._replace(architecture="Zamba2Model")
    found = as_built(tree, {"model_type": "zamba2", "architectures": ["X"]}, "FEATURE_EXTRACTION", None)
    assert (found.basis, [note.code for note in found.notes][-1]) == ("inferred", "class_not_confirmed")


MARIAN = {**DECODER, "architectures": ["MarianModel"]}
SWIN = {"model_type": "swin", "architectures": ["SwinModel"], "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2],
        "image_size": 32, "patch_size": 4, "window_size": 4}  # fmt: skip
SEQ2SEQ = {**T5, "architectures": ["T5ForConditionalGeneration"]}
CTC = {"model_type": "wav2vec2", "architectures": ["Wav2Vec2ForCTC"], "hidden_size": 48, "intermediate_size": 80,
       "num_hidden_layers": 1, "num_attention_heads": 4, "num_conv_pos_embeddings": 4, "vocab_size": 32,
       "num_conv_pos_embedding_groups": 2}  # fmt: skip
RELATIVE = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"


@pytest.mark.parametrize(
    ("config", "lost", "first"),
    [
        pytest.param(MARIAN, "encoder.layers", "encoder.layers.0.self_attn.k_proj.weight and 15 more", id="a list"),
        pytest.param(SWIN, "encoder.layers.1.blocks.0.mlp.fc2", "encoder.layers.1.blocks.0.mlp.fc2.weight and 1 more",
                     id="one alone"),
        pytest.param(SWIN, "no such", "", id="nothing"),
        pytest.param(SEQ2SEQ, RELATIVE, f"{RELATIVE}.weight", id="what only some layers have"),
        pytest.param(CTC, "wav2vec2.masked_spec_embed", "wav2vec2.masked_spec_embed", id="a module's own parameter"),
    ],
)  # fmt: skip
def test_a_class_has_its_parts_though_its_file_holds_none_of_them(config, lost, first):
    whole = from_config(config)
    kept = tuple(
        m._replace(parameters=tuple(p for p in m.parameters if f"{m.name}.{p.name}" != lost))
        for m in whole.modules
        if not m.name.startswith(lost)
    )
    stored = [name for name in parameter_shapes(whole.modules) if not name.startswith(lost)]
    found = as_built(whole._replace(modules=kept), config, None, None, stored)
    assert (found.modules, found.tied) == (whole.modules, whole.tied)
    assert list(found.lacking) == [name for name in parameter_shapes(whole.modules) if name.startswith(lost)]
    said = [note.message for note in found.notes if note.code == "made_anew"]
    assert [f"lacks {first}: " in message for message in said] == [True] * bool(first)


def test_what_a_file_lacks_has_the_shape_of_its_own_layer():
    whole = from_config(SWIN)
    name = "encoder.layers.1.blocks.0.layernorm_before"
    modules = {m.name: m for m in whole.modules}
    neighbours = modules[name.replace("layers.1", "layers.0")].parameters
    guessed = {**modules, name: modules[name]._replace(parameters=neighbours)}
    tree = whole._replace(modules=tuple(guessed.values()), lacking=(f"{name}.weight",))
    assert as_built(tree, SWIN, None, None).modules == whole.modules


def test_parameters_that_are_put_in_are_tied_as_the_class_ties_them():
    config = {"model_type": "big_bird", "architectures": ["BigBirdForMaskedLM"], "hidden_size": 48, "vocab_size": 101,
              "num_hidden_layers": 1, "num_attention_heads": 6, "attention_type": "original_full"}  # fmt: skip
    whole = from_config(config)
    bias = "cls.predictions.decoder.bias"
    modules = tuple(
        m._replace(parameters=tuple(p for p in m.parameters if p.name != "bias")) if m.name == "cls.predictions" else m
        for m in whole.modules
    )
    tied = {name: root for name, root in whole.tied.items() if name != bias}
    stored = whole._replace(modules=modules, tied=tied, notes=(Note("missing_tensors", "1 is missing"),))
    assert as_built(stored, config, None, None).tied == whole.tied


def test_a_class_is_built_though_the_file_lacks_most_of_it():
    whole = from_config(SWIN)
    bare = tuple(module for module in whole.modules if not module.name.startswith("encoder.layers"))
    lost = [name for name in parameter_shapes(whole.modules) if name.startswith("encoder.layers")]
    found = as_built(whole._replace(modules=bare), SWIN, None, None, parameter_shapes(bare))
    assert (found.modules, list(found.lacking)) == (whole.modules, lost)


DEBERTA = {"model_type": "deberta", "architectures": ["DebertaForMaskedLM"], "hidden_size": 48, "vocab_size": 101,
           "num_hidden_layers": 1, "num_attention_heads": 6, "pos_att_type": ["c2p"], "legacy": False}  # fmt: skip


@pytest.mark.parametrize(
    ("older", "said"),
    [
        pytest.param([], [], id="nothing of it is stored"),
        pytest.param(["cls.predictions.decoder.weight"], ["unused_tensors"], id="stored, and not loaded"),
    ],
)
def test_a_head_that_the_class_builds_in_another_way_is_gone(older, said):
    """DeBERTa's head for masked words, an older one and a newer one: the outputs' embedding with it."""
    whole, old = from_config(DEBERTA), from_config({**DEBERTA, "legacy": True})
    head = tuple(module for module in old.modules if module.name.startswith("cls"))
    both = whole._replace(modules=(*whole.modules, *head), output_embedding="cls.predictions.decoder")
    both = both._replace(lacking=("cls.predictions.bias",))
    found = as_built(both, DEBERTA, None, None, [*parameter_shapes(whole.modules), *older])
    assert (found.modules, found.lacking) == (whole.modules, ())
    assert [note.code for note in found.notes] == said
    assert found.output_embedding == "lm_predictions.lm_head.dense"


QWEN2 = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 32, "intermediate_size": 48,
         "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100}  # fmt: skip
QWEN3_MOE = {**QWEN2, "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "head_dim": 8,
             "num_experts": 4, "moe_intermediate_size": 16}  # fmt: skip


@pytest.mark.parametrize("task", [None, "SEQ_CLS"])
@pytest.mark.parametrize("quantised", [{}, {"quantization_config": {"quant_method": "gptq", "bits": 4}}])
def test_config_json_tells_the_modules_though_the_file_holds_others(quantised, task):
    """transformers 5.23.0 builds experts, of fresh weights, and loads neither a dense MLP nor biases beside them."""
    names = parameter_shapes(from_config(QWEN2).modules)
    tensors = {name: Tensor(name, "F32", shape, "model.safetensors") for name, shape in names.items()}
    tree = tree_of_headers(QWEN3_MOE | quantised, Checkpoint(tensors=tensors, files=(), bytes=0), task, None)
    assert parameter_shapes(tree.modules) == parameter_shapes(from_config(QWEN3_MOE, task=task).modules)
    unread = "does not load model.layers.0.mlp.down_proj.weight and 11 more"  # of two layers, three biases in each
    assert unread in "".join(note.message for note in tree.notes if note.code == "unused_tensors")


@pytest.mark.parametrize(
    ("task", "layers", "lacking"),
    [
        pytest.param("SEQ_CLS", 2, 0, id="a head of its own, which no file has to hold"),
        pytest.param("SEQ_CLS", 3, 12, id="and layers that the file should hold"),
    ],
)
def test_a_tasks_class_lacks_layers_of_a_list_that_the_file_holds(task, layers, lacking):
    names = parameter_shapes(from_config(QWEN2).modules)
    tensors = {name: Tensor(name, "F32", shape, "model.safetensors") for name, shape in names.items()}
    config = QWEN2 | {"num_hidden_layers": layers}
    tree = tree_of_headers(config, Checkpoint(tensors=tensors, files=(), bytes=0), task, None)
    assert parameter_shapes(tree.modules) == parameter_shapes(from_config(config, task=task).modules)
    assert len(tree.lacking) == lacking


TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": 100}  # fmt: skip
OPT = {**TINY, "model_type": "opt", "architectures": ["OPTForCausalLM"], "ffn_dim": 48, "word_embed_proj_dim": 32}
MAMBA = {**TINY, "model_type": "mamba", "architectures": ["MambaForCausalLM"]}
DINO = {**TINY, "model_type": "dinov2", "architectures": ["Dinov2Model"], "image_size": 16, "patch_size": 4}
XLNET = {"model_type": "xlnet", "architectures": ["XLNetForSequenceClassification"], "d_model": 32, "d_inner": 48,
         "n_layer": 1, "n_head": 4, "vocab_size": 100}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "change", "lost", "anew"),
    [
        pytest.param(OPT, {"layer_norm_elementwise_affine": False}, 10, 0, id="norms without weights"),
        pytest.param(MAMBA, {"use_conv_bias": False}, 2, 0, id="biases of convolutions"),
        pytest.param(DINO, {"use_mask_token": False}, 1, 0, id="a module's own parameter"),
        pytest.param(XLNET, {"summary_use_proj": False}, 2, 0, id="Identity in the place of a projection"),
        pytest.param(QWEN2, {"num_hidden_layers": 3}, 0, 12, id="a layer more than there are stored"),
        pytest.param(QWEN2, {"num_hidden_layers": 1}, 12, 0, id="a layer less"),
    ],
)
def test_a_file_of_another_config_json_is_loaded_as_the_class_is_built(config, change, lost, anew):
    """transformers 5.23.0: what is not built is not loaded, what is not stored is made anew."""
    whole, built = from_config(config), from_config(config | change)
    shapes = {name: shape for name, shape in parameter_shapes(whole.modules).items() if name not in whole.tied}
    stored = {name: Tensor(name, "F32", shape, "model.safetensors") for name, shape in shapes.items()}
    tree = tree_of_headers(config | change, Checkpoint(tensors=stored, files=(), bytes=0), None, None)
    assert (parameter_shapes(tree.modules), tree.tied) == (parameter_shapes(built.modules), built.tied)
    assert (len(shapes.keys() - parameter_shapes(built.modules).keys()), len(tree.lacking)) == (lost, anew)
    codes = {note.code for note in tree.notes}
    assert ("unused_tensors" in codes, "made_anew" in codes) == (lost > 0, anew > 0)


def test_an_embedding_is_no_loss_where_the_head_that_is_tied_to_it_is_stored():
    """transformers 5.23.0, tie_weights: "We're missing the source but we have the target -> we swap them"."""
    config = QWEN2 | {"tie_word_embeddings": True}
    names = parameter_shapes(from_config(QWEN2).modules)
    head = {name: shape for name, shape in names.items() if name != "model.embed_tokens.weight"}
    stored = {name: Tensor(name, "F32", shape, "model.safetensors") for name, shape in head.items()}
    tree = tree_of_headers(config, Checkpoint(tensors=stored, files=(), bytes=0), None, None)
    assert (tree.lacking, [note.code for note in tree.notes]) == ((), [])


@pytest.mark.parametrize("fields", [{}, {"num_hidden_layers": 2}])
def test_headers_tell_how_many_layers_there_are_where_no_default_does(fields):
    """Zamba's number is 76 by default, which its formulas have no use for."""
    kinds = {"layer_types": ["hybrid", "mamba"], "hidden_size": 48, "intermediate_size": 80, "vocab_size": 101}
    config = {"model_type": "zamba", "architectures": ["ZambaModel"], "num_attention_heads": 4, **kinds}
    whole = from_config({**config, "num_key_value_heads": 4, "num_hidden_layers": 2})
    shapes = parameter_shapes(whole.modules)
    stored = {n: Tensor(n, "F32", shape, "model.safetensors") for n, shape in shapes.items() if n not in whole.tied}
    found = tree_of_headers({**config, **fields}, Checkpoint(tensors=stored, files=(), bytes=0), None, None)
    assert parameter_shapes(found.modules) == shapes


GLM = {"model_type": "glm_moe_dsa", "architectures": ["GlmMoeDsaForCausalLM"], "hidden_size": 48,
       "intermediate_size": 80, "num_hidden_layers": 1, "num_attention_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 16,
       "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 16, "head_dim": 24, "vocab_size": 101}  # fmt: skip
BIRD = {"model_type": "big_bird", "architectures": ["BigBirdForCausalLM"], "is_decoder": True, "hidden_size": 48,
        "add_cross_attention": True, "intermediate_size": 80, "num_hidden_layers": 1, "num_attention_heads": 4,
        "vocab_size": 101}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "name", "cls", "buffers"),
    [
        pytest.param(GLM, "model.rotary_emb", "GlmMoeDsaRotaryEmbedding", [(4,), (4,)], id="frequencies of another width"),
        pytest.param(BIRD, "bert.encoder.layer.0.attention.self", "BigBirdSelfAttention", [], id="a class by two fields"),
    ],
)  # fmt: skip
def test_what_no_header_tells_is_as_the_class_has_it(config, name, cls, buffers):
    """The truth is `named_modules()` of the class on the meta device."""
    stored = {
        name: Tensor(name, "F32", shape, "f") for name, shape in parameter_shapes(from_config(config).modules).items()
    }
    tree = tree_of_headers(config, Checkpoint(tensors=stored, files=(), bytes=0), None, None)
    module = next(module for module in tree.modules if module.name == name)
    assert (module.cls, [buffer.shape for buffer in module.buffers]) == (cls, buffers)
