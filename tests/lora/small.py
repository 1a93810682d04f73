"""A small model whose numbers can be done by hand, and one with fused experts."""

from __future__ import annotations

from estimator.architecture.module import Module, ModuleTree, Parameter

WIDTH, ROWS = 48, 101


def linear(name: str, out: int, into: int, *, bias: bool = False) -> Module:
    own = [Parameter("weight", (out, into), "BF16")] + [Parameter("bias", (out,), "BF16")] * bias
    return Module(name, "Linear", "Linear", tuple(own))


def layer(number: int) -> list[Module]:
    name = f"model.layers.{number}"
    return [
        Module(name, "Layer", "other"),
        linear(f"{name}.q_proj", 48, WIDTH),
        linear(f"{name}.v_proj", 16, WIDTH, bias=True),
        Module(f"{name}.norm", "Norm", "other", (Parameter("weight", (WIDTH,), "BF16"),)),
    ]


def model(*layers: Module, model_type: str = "llama") -> ModuleTree:
    return ModuleTree(
        architecture="TinyForCausalLM",
        config={"model_type": model_type, "vocab_size": ROWS, "tie_word_embeddings": False},
        modules=(
            Module("", "TinyForCausalLM", "other"),
            Module("model", "TinyModel", "other"),
            Module("model.embed_tokens", "Embedding", "Embedding", (Parameter("weight", (ROWS, WIDTH), "BF16"),)),
            Module("model.layers", "ModuleList", "other"),
            *layers,
            linear("lm_head", ROWS, WIDTH),
        ),
        tied={},
        input_embedding="model.embed_tokens",
        output_embedding="lm_head",
    )


TREE = model(*layer(0), *layer(1))
TIED = TREE._replace(tied={"lm_head.weight": "model.embed_tokens.weight"}, tie_word_embeddings=True, declares_ties=True)
Q, V = 48 + WIDTH, 16 + WIDTH  # parameters of one q_proj and one v_proj for each rank

EXPERTS, INNER = 4, 10
MOE = model(
    Module("model.layers.0", "Layer", "other"),
    linear("model.layers.0.q_proj", 48, WIDTH),
    Module(
        "model.layers.0.experts",
        "Experts",
        "other",
        (
            Parameter("gate_up_proj", (EXPERTS, 2 * INNER, WIDTH), "BF16"),
            Parameter("down_proj", (EXPERTS, WIDTH, INNER), "BF16"),
        ),
    ),
    model_type="qwen3_moe",
)
