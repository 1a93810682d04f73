"""The module tree as `print(model)` shows it, with lora_A and lora_B where PEFT would put them.

Layout: torch 2.13.0, nn/modules/module.py (`Module.__repr__`) and container.py (`ModuleList.__repr__`, which folds
neighbours of equal text into `(0-31): 32 x ...`). What only the running class knows (eps, p) is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from estimator.architecture.module import Module, ModuleTree
from estimator.report.units import printable

_INDENT = "  "
_FOLDED = "ModuleList"


def as_tree(tree: ModuleTree, adapted: Iterable[Any]) -> str:
    """`adapted`: entries with name, what (PEFT's class), in_features, out_features and rank (None: no LoRA)."""
    by_name = {module.name: module for module in tree.modules}
    children: dict[str, list[str]] = {}
    for module in tree.modules:
        if module.name:
            parent = module.name.rpartition(".")[0]
            children.setdefault(parent, []).append(module.name)
    loras = {module.name.replace(".base_layer", ""): module for module in adapted if module.rank is not None}
    return "\n".join(_Printer(by_name, children, loras).lines(""))


class _Printer:
    def __init__(
        self, modules: Mapping[str, Module], children: Mapping[str, list[str]], loras: Mapping[str, Any]
    ) -> None:
        self.modules, self.children, self.loras = modules, children, loras

    def lines(self, name: str) -> list[str]:
        if name in self.loras:
            return self._with_lora(name)
        return self._plain(name)

    def _plain(self, name: str) -> list[str]:
        module = self.modules.get(name) or Module(name, "Module", "other")
        inner = [(child.rpartition(".")[2], self.lines(child)) for child in self.children.get(name, ())]
        if not inner:
            return [_one_line(module)]
        pairs = _folded(inner) if module.cls == _FOLDED else [(f"({printable(key)}): ", text) for key, text in inner]
        return _block(printable(module.cls), pairs)

    def _with_lora(self, name: str) -> list[str]:
        lora = self.loras[name]
        pairs = [("(base_layer): ", self._plain(name))]
        for matrix, size in (("lora_A", (lora.in_features, lora.rank)), ("lora_B", (lora.rank, lora.out_features))):
            inside = f"Linear(in_features={size[0]}, out_features={size[1]}, bias=False)"
            pairs.append((f"({matrix}): ", _block("ModuleDict", [("(default): ", [inside])])))
        return _block(f"lora.{printable(lora.what)}", pairs)


def _block(title: str, pairs: Iterable[tuple[str, list[str]]]) -> list[str]:
    lines = [f"{title}("]
    for opening, text in pairs:
        lines.append(_INDENT + opening + text[0])
        lines += [_INDENT + line for line in text[1:]]
    return [*lines, ")"]


def _folded(inner: list[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    pairs = []
    for text, group in groupby(inner, key=lambda pair: pair[1]):
        keys = [key for key, _ in group]
        if len(keys) == 1:
            pairs.append((f"({keys[0]}): ", text))
        else:
            pairs.append((f"({keys[0]}-{keys[-1]}): {len(keys)} x ", text))
    return pairs


def _one_line(module: Module) -> str:
    shapes = {parameter.name: parameter.shape for parameter in module.parameters}
    weight, bias = shapes.get("weight", ()), "bias" in shapes
    if module.kind == "Linear" and len(weight) == 2:
        inside = f"in_features={weight[1]}, out_features={weight[0]}, bias={bias}"
    elif module.kind == "Conv1D" and len(weight) == 2:
        inside = f"nf={weight[1]}, nx={weight[0]}"
    elif module.kind == "Embedding" and len(weight) == 2:
        inside = f"{weight[0]}, {weight[1]}"
    elif module.kind.startswith("Conv") and len(weight) > 2:
        inside = f"{weight[1] * module.groups}, {weight[0]}, kernel_size={weight[2:]}"
        inside += f", groups={module.groups}" if module.groups != 1 else ""
    elif list(shapes) in (["weight"], ["weight", "bias"]):
        inside = f"{weight}"
    else:
        inside = ", ".join(f"{printable(name)}: {shape}" for name, shape in shapes.items())
    return f"{printable(module.cls)}({inside})"
