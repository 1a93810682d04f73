"""The tree as torch prints one, LoRA in it, equal layers folded."""

from __future__ import annotations

from typing import NamedTuple

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.report.as_tree import as_tree


class Adapted(NamedTuple):
    name: str
    in_features: int
    out_features: int
    rank: int
    what: str = "Linear"


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
        (lora_A): ModuleDict(
          (default): Linear(in_features=4, out_features=2, bias=False)
        )
        (lora_B): ModuleDict(
          (default): Linear(in_features=2, out_features=6, bias=False)
        )
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
    assert as_tree(tree_of(3), [Adapted("layers.0.q", 4, 6, 2)]) == EXPECTED


def test_equal_neighbours_are_folded_as_torch_folds_them() -> None:
    assert "(0-2): 3 x Layer(" in as_tree(tree_of(3), [])
