"""Embeddings, heads and shared weights where no facts are at hand. Truth: transformers 5.23.0's classes of these names."""

from __future__ import annotations

import pytest

from estimator.architecture.inference.embeddings import Embeddings
from estimator.architecture.inference.infer import infer
from estimator.architecture.module import Module, Parameter
from estimator.checkpoint.checkpoint import Checkpoint, Tensor

ROWS, WIDTH = 100, 8


def inferred(cls, *names, **config):
    """The tree of a file with tensors of these names; what embeds tokens or puts them out has 100 rows."""
    stored = {}
    for name in names:
        shape = (ROWS,) if name.endswith(("head.bias", "decoder.bias", "predictions.bias", "loss.bias")) else (WIDTH,)
        shape = (
            (ROWS, WIDTH)
            if name.endswith((".shared.weight", "embed_tokens.weight", "word_embeddings.weight"))
            else shape
        )
        stored[name] = Tensor(
            name, "BF16", shape if "norm" in name or len(shape) > 1 or "bias" in name else (5, WIDTH), "f"
        )
    return infer({"architectures": [cls], **config}, Checkpoint(tensors=stored, files=(), bytes=0))


@pytest.mark.parametrize(
    ("names", "embedding", "head"),
    [
        pytest.param(["model.embed_tokens", "lm_head"], "model.embed_tokens", "lm_head", id="LLaMA"),
        pytest.param(["embed_tokens", "layers.0.q_proj"], "embed_tokens", None, id="the model without a head"),
        pytest.param(["bert.embeddings.word_embeddings"], "bert.embeddings.word_embeddings", None, id="BERT"),
        pytest.param(
            ["bert.embeddings.word_embeddings", "cls.predictions.decoder"],
            "bert.embeddings.word_embeddings",
            "cls.predictions.decoder",
            id="its masked language model",
        ),
        pytest.param(["transformer.wte", "transformer.h.0.c_fc", "lm_head"], "transformer.wte", "lm_head", id="GPT-2"),
        pytest.param(["shared", "encoder.block.0.q", "decoder.block.0.q", "lm_head"], "shared", "lm_head", id="T5"),
        pytest.param(
            ["model.encoder.conv1", "model.decoder.embed_tokens", "proj_out"],
            "model.decoder.embed_tokens",
            "proj_out",
            id="Whisper",
        ),
        pytest.param(
            ["model.language_model.embed_tokens", "model.visual.blocks.0.q", "lm_head"],
            "model.language_model.embed_tokens",
            "lm_head",
            id="an image-and-text model",
        ),
        pytest.param(
            ["text_model.embeddings.token_embedding", "vision_model.embeddings.patch_embedding", "text_projection"],
            None,
            None,
            id="CLIP: two towers side by side",
        ),
        pytest.param(["wav2vec2.encoder.layers.0.q_proj", "lm_head"], None, None, id="a speech encoder's lm_head"),
        pytest.param(
            ["vit.embeddings.patch_embeddings.projection", "classifier"],
            "vit.embeddings.patch_embeddings",
            None,
            id="ViT",
        ),
    ],
)
def test_embedding_and_head(names, embedding, head):
    modules = {}
    for name in names:
        parts = name.split(".")
        for depth in range(len(parts)):
            modules.setdefault(".".join(parts[:depth]), Module(".".join(parts[:depth]), "Module", "other"))
        kind = "Embedding" if "embed" in parts[-1] or parts[-1] in ("wte", "shared") else "Linear"
        modules[name] = Module(name, kind, kind, (Parameter("weight", (ROWS, WIDTH), "BF16"),))
    found = Embeddings(list(modules.values()))
    assert (found.input(), found.output(found.input())) == (embedding, head)


@pytest.mark.parametrize(
    ("cls", "names", "config", "tied"),
    [
        pytest.param(
            "NewForCausalLM",
            ["model.embed_tokens.weight", "model.norm.weight"],
            {},
            {"lm_head.weight": "model.embed_tokens.weight"},
            id="a head that the file lacks",
        ),
        pytest.param(
            "NewForCausalLM",
            ["model.embed_tokens.weight"],
            {"tie_word_embeddings": False},
            {},
            id="config.json says no",
        ),
        pytest.param(
            "NewForConditionalGeneration",
            ["model.language_model.embed_tokens.weight"],
            {"text_config": {"tie_word_embeddings": False}},
            {},
            id="the text model's config says no",
        ),
        pytest.param("NewForSequenceClassification", ["model.embed_tokens.weight"], {}, {}, id="a class without one"),
        pytest.param(
            "BertForMaskedLM",
            [
                "bert.embeddings.word_embeddings.weight",
                "cls.predictions.bias",
                "cls.predictions.transform.dense.weight",
            ],
            {},
            {
                "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
                "cls.predictions.decoder.bias": "cls.predictions.bias",
            },
            id="BERT's bias stands above its decoder",
        ),
        pytest.param(
            "XLNetLMHeadModel",
            ["transformer.word_embeddings.weight", "transformer.layer.0.a.weight", "lm_loss.bias"],
            {},
            {"lm_loss.weight": "transformer.word_embeddings.weight"},
            id="XLNet's is its head's own",
        ),
        pytest.param(
            "T5ForConditionalGeneration",
            ["model.shared.weight", "model.encoder.norm.weight", "model.decoder.norm.weight"],
            {},
            {
                "lm_head.weight": "model.shared.weight",
                "model.encoder.embed_tokens.weight": "model.shared.weight",
                "model.decoder.embed_tokens.weight": "model.shared.weight",
            },
            id="encoder and decoder share one embedding",
        ),
        pytest.param(
            "SpeechForConditionalGeneration",
            ["model.encoder.conv1.weight", "model.decoder.embed_tokens.weight"],
            {},
            {"proj_out.weight": "model.decoder.embed_tokens.weight"},
            id="what turns speech to text calls its head so",
        ),
        pytest.param(
            "KosmosForConditionalGeneration",
            ["text_model.model.embed_tokens.weight"],
            {},
            {"text_model.lm_head.weight": "text_model.model.embed_tokens.weight"},
            id="beside the model that holds the embedding",
        ),
        pytest.param(
            "ZambaForSequenceClassification",
            ["model.layers.1.shared_transf.norm.weight", "model.layers.2.norm.weight", "model.layers.3.norm.weight"],
            {"layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"]},
            {"model.layers.3.shared_transf.norm.weight": "model.layers.1.shared_transf.norm.weight"},
            id="hybrid layers share a block",
        ),
    ],
)
def test_what_the_file_leaves_out_is_tied(cls, names, config, tied):
    assert dict(inferred(cls, *names, **config).tied) == tied


@pytest.mark.parametrize(
    ("gate_up", "down", "transposed"),
    [
        pytest.param((4, 12, 5), (4, 5, 6), False, id="(experts, out, in)"),
        pytest.param((4, 5, 12), (4, 6, 5), True, id="(experts, in, out): gpt-oss"),
    ],
)
def test_transposed_experts_are_seen_from_their_shapes(gate_up, down, transposed):
    names = {"mlp.experts.gate_up_proj": gate_up, "mlp.experts.down_proj": down}
    tensors = {name: Tensor(name, "BF16", shape, "f") for name, shape in names.items()}
    tree = infer({}, Checkpoint(tensors=tensors, files=(), bytes=0))
    assert tree.transposed == (tuple(sorted(names)) if transposed else ())


def test_layers_stand_in_a_list():
    tree = inferred("NewModel", "layers.0.norm.weight", "layers.10.norm.weight", "layers.2.norm.weight")
    assert [(m.name, m.cls) for m in tree.modules][1] == ("layers", "ModuleList")
    assert [m.name for m in tree.modules if m.parameters] == [f"layers.{index}.norm" for index in (0, 2, 10)]
