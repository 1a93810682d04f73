"""Models with code of their own, seen from names and shapes. Truth: the modules that the published code builds."""

from __future__ import annotations

import pytest

from estimator.architecture.inference.infer import infer
from estimator.checkpoint.checkpoint import Checkpoint, Tensor

WIDTH, ROWS = 8, 40
TOKENS = {"transformer.wte.weight": (ROWS, WIDTH), "lm_head.weight": (ROWS, WIDTH)}
LANGUAGE = {"model.embed_tokens.weight": (ROWS, WIDTH), "model.layers.0.mlp.up_proj.weight": (12, WIDTH)}


def inferred(cls, shapes, **config):
    stored = {name: Tensor(name, "BF16", shape, "f") for name, shape in shapes.items()}
    config = {"architectures": [cls], "auto_map": {"AutoModelForCausalLM": f"modeling.{cls}"}, **config}
    return infer(config, Checkpoint(tensors=stored, files=(), bytes=0))


@pytest.mark.parametrize(
    ("shapes", "kinds"),
    [
        pytest.param(
            {
                "transformer.h.0.attn.c_attn.weight": (24, 8),
                "transformer.h.0.attn.c_attn.bias": (24,),
                "transformer.h.0.attn.c_proj.weight": (8, 8),
            },
            {"attn.c_attn": "Linear", "attn.c_proj": "Linear"},
            id="Qwen: GPT-2's names, torch's Linears",
        ),
        pytest.param(
            {
                "transformer.h.0.attn.c_proj.weight": (8, 8),
                "transformer.h.0.attn.c_proj.bias": (8,),
                "transformer.h.0.mlp.c_fc.weight": (20, 8),
                "transformer.h.0.mlp.c_fc.bias": (20,),
            },
            {"attn.c_proj": "Linear", "mlp.c_fc": "Linear"},
            id="CodeShell: a square one is as the others are",
        ),
        pytest.param(
            {
                "transformer.h.0.attn.c_attn.weight": (8, 24),
                "transformer.h.0.attn.c_attn.bias": (24,),
                "transformer.h.0.attn.c_proj.weight": (8, 8),
                "transformer.h.0.attn.c_proj.bias": (8,),
            },
            {"attn.c_attn": "Conv1D", "attn.c_proj": "Conv1D"},
            id="BTLM: GPT-2's names and its Conv1Ds",
        ),
        pytest.param(
            {
                "transformer.h.0.attn.c_attn.weight": (8, 24),
                "transformer.h.0.attn.c_attn.bias": (24,),
                "transformer.h.0.crossattention.c_proj.weight": (8, 6),
                "transformer.h.0.crossattention.c_proj.bias": (8,),
            },
            {"attn.c_attn": "Conv1D", "crossattention.c_proj": "Linear"},
            id="a Linear beside Conv1Ds, by its bias",
        ),
    ],
)
def test_what_gpt2_s_names_mean_the_shapes_tell(shapes, kinds):
    found = {module.name: module.kind for module in inferred("NewForCausalLM", {**TOKENS, **shapes}).modules}
    assert {name: found[f"transformer.h.0.{name}"] for name in kinds} == kinds


@pytest.mark.parametrize(
    ("cls", "shapes", "embedding", "head"),
    [
        pytest.param(
            "ChatGLMForConditionalGeneration",
            {
                "transformer.embedding.word_embeddings.weight": (ROWS, WIDTH),
                "transformer.vision.patch_embedding.proj.weight": (8, 3, 2, 2),
                "transformer.output_layer.weight": (ROWS, WIDTH),
            },
            "transformer.embedding.word_embeddings",
            None,
            id="ChatGLM: its head is none that transformers finds, and no other is tied",
        ),
        pytest.param(
            "OLMoForCausalLM",
            {
                "model.transformer.wte.weight": (ROWS, WIDTH),
                "model.transformer.blocks.0.ff_out.weight": (WIDTH, 12),
                "model.transformer.ff_out.weight": (ROWS, WIDTH),
            },
            "model.transformer.wte",
            None,
            id="OLMo: a head of another name is stored, and no other is tied",
        ),
        pytest.param(
            "PhiForCausalLM",
            {
                "transformer.embd.wte.weight": (ROWS, WIDTH),
                "lm_head.ln.weight": (WIDTH,),
                "lm_head.linear.weight": (ROWS, WIDTH),
            },
            "transformer.embd.wte",
            "lm_head.linear",
            id="Phi, of old: the head in a module with a norm",
        ),
        pytest.param(
            "MiniCPMV",
            {f"llm.{name}": shape for name, shape in (LANGUAGE | {"lm_head.weight": (ROWS, WIDTH)}).items()}
            | {"vpm.embeddings.patch_embedding.weight": (8, 3, 2, 2), "vte.weight": (30, WIDTH)},
            "llm.model.embed_tokens",
            "llm.lm_head",
            id="MiniCPM-V and Ovis: the language model is called llm",
        ),
        pytest.param(
            "DeepseekVLV2ForCausalLM",
            {f"language.{name}": shape for name, shape in (LANGUAGE | {"lm_head.weight": (ROWS, WIDTH)}).items()},
            "language.model.embed_tokens",
            "language.lm_head",
            id="DeepSeek-VL 2: the language model is called language",
        ),
        pytest.param(
            "InternVLChatModel",
            {
                "language_model.model.tok_embeddings.weight": (ROWS, WIDTH),
                "language_model.output.weight": (ROWS, WIDTH),
            },
            "language_model.model.tok_embeddings",
            "language_model.output",
            id="InternVL around InternLM 2",
        ),
    ],
)
def test_embedding_and_head(cls, shapes, embedding, head):
    tree = inferred(cls, shapes)
    assert (tree.basis, tree.input_embedding, tree.output_embedding) == ("inferred", embedding, head)
    assert not tree.tied
    assert not [m for m in tree.modules if m.name == "vte" and m.kind != "Embedding"]


@pytest.mark.parametrize(("rows", "named"), [pytest.param(4, True, id="of experts"), pytest.param(5, False, id="more")])
def test_a_router_that_may_be_a_linear_is_named(rows, named):
    """DeepSeek's published code keeps a parameter of its own there, Mixtral's and Qwen's a Linear: all-linear differs."""
    gate = {"model.layers.0.mlp.gate.weight": (rows, WIDTH)}
    (note,) = inferred("OwnForCausalLM", LANGUAGE | gate, num_experts=4).notes
    assert ("model.layers.0.mlp.gate is taken for a router that is no Linear" in note.message) is named
