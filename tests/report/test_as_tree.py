"""The tree as torch prints one, LoRA in it, equal layers folded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.jobs.estimate import estimate
from estimator.report.as_tree import as_tree
from estimator.report.document import to_document
from estimator.request.request import Request


class Adapted(NamedTuple):
    name: str
    in_features: int
    out_features: int
    rank: int
    what: str = "Linear"
    parameters: int = 0


def weight(*shape: int) -> tuple[Parameter, ...]:
    return (Parameter("weight", shape, "F32"),)


def tree_of(layers: int) -> ModuleTree:
    modules = [Module("", "Tiny", "other"), Module("layers", "ModuleList", "other")]
    for index in range(layers):
        modules += [
            Module(f"layers.{index}", "Layer", "other"),
            Module(f"layers.{index}.q", "Linear", "Linear", weight(6, 4)),
            Module(f"layers.{index}.conv", "Conv1d", "Conv1d", weight(4, 1, 3), groups=4),
            Module(f"layers.{index}.norm\x1b", "Norm", "other", weight(4)),
        ]
    modules.append(Module("c", "Conv1D", "Conv1D", (*weight(4, 12), Parameter("bias", (12,), "F32"))))
    modules.append(Module("e", "Embedding", "Embedding", weight(9, 4)))
    return ModuleTree(architecture="Tiny", config={}, modules=tuple(modules), tied={})


EXPECTED = """\
Tiny(
  (layers): ModuleList(
    (0): Layer(
      (q): lora.Linear(
        (base_layer): Linear(in_features=4, out_features=6, bias=False)
        (lora_dropout): ModuleDict(
          (default): Identity()
        )
        (lora_A): ModuleDict(
          (default): Linear(in_features=4, out_features=2, bias=False)
        )
        (lora_B): ModuleDict(
          (default): Linear(in_features=2, out_features=6, bias=False)
        )
        (lora_embedding_A): ParameterDict()
        (lora_embedding_B): ParameterDict()
        (lora_magnitude_vector): ModuleDict()
      )
      (conv): Conv1d(4, 4, kernel_size=(3,), groups=4)
      (norm\\x1b): Norm((4,))
    )
    (1-2): 2 x Layer(
      (q): Linear(in_features=4, out_features=6, bias=False)
      (conv): Conv1d(4, 4, kernel_size=(3,), groups=4)
      (norm\\x1b): Norm((4,))
    )
  )
  (c): Conv1D(nf=12, nx=4)
  (e): Embedding(9, 4)
)"""


def test_a_tree_with_lora_in_one_layer() -> None:
    assert as_tree(tree_of(3), [Adapted("layers.0.q", 4, 6, 2)], {}) == EXPECTED


def test_equal_neighbours_are_folded_as_torch_folds_them() -> None:
    assert "(0-2): 3 x Layer(" in as_tree(tree_of(3), [], {})


# What only the running class knows.
_LEFT_OUT = re.compile(
    r", eps=[\de.-]+|, elementwise_affine=True(?:, bias=True)?|(?<=Dropout\()p=0.0, inplace=False|, stride=\(4, 4\)"
)
LLAMA = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 10}
VIT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8,
       "patch_size": 4}  # fmt: skip


@pytest.mark.judges
@pytest.mark.parametrize(
    ("kind", "sizes", "lora"),
    [
        pytest.param(
            "Llama", LLAMA, {"target_modules": ["q_proj", "embed_tokens"], "lora_dropout": 0.1}, id="embedding"
        ),
        pytest.param("Llama", LLAMA, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, id="saved module"),
        pytest.param(
            "Llama", LLAMA, {"target_modules": ["q_proj"], "trainable_token_indices": [0, 1, 5]}, id="token rows"
        ),
        pytest.param(
            "Llama",
            {**LLAMA, "tie_word_embeddings": True},
            {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [3]}},
            id="rows of tied tokens",
        ),
        pytest.param("Llama", LLAMA, {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True}, id="DoRA"),
        pytest.param("Llama", LLAMA, {"target_modules": ["q_proj"], "lora_bias": True}, id="a bias in lora_B"),
        pytest.param("ViT", VIT, {"target_modules": ["projection"], "use_dora": True}, id="convolution"),
        pytest.param("ViT", VIT, {"target_modules": ["projection"], "lora_bias": True}, id="convolution with a bias"),
    ],
)
def test_a_tree_is_what_peft_prints(tmp_path: Path, kind: str, sizes: dict[str, Any], lora: dict[str, Any]) -> None:
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    name = {"Llama": "LlamaForCausalLM", "ViT": "ViTModel"}[kind]
    model = getattr(transformers, name)(getattr(transformers, f"{kind}Config")(**sizes))
    printed = str(peft.get_peft_model(model, peft.LoraConfig(r=4, **lora)).base_model.model)
    (tmp_path / "config.json").write_text(json.dumps({**sizes, "model_type": kind.lower(), "architectures": [name]}))
    answer = estimate(Request(model=str(tmp_path), lora={"r": 4, **lora}))
    shown = as_tree(answer.tree, answer.adaptation.modules, to_document(answer)["lora"], "F32")
    assert _LEFT_OUT.sub("", shown) == _LEFT_OUT.sub("", printed)
