"""The module tree as `print(model)` shows it, with what PEFT would put around its modules.

Layout: torch 2.13.0, nn/modules/module.py (`Module.__repr__`) and container.py (`ModuleList.__repr__`, which folds
neighbours of equal text into `(0-31): 32 x ...`). What only the running class knows (eps, p) is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from estimator.architecture.module import Module, ModuleTree
from estimator.source.plain import plain

_INDENT = "  "
_FOLDED = "ModuleList"
_TOKENS = ".token_adapter"  # PEFT's layer with token rows, inside of a wrapper
_TENSORS = {"F32": "Float", "BF16": "BFloat16", "F16": "Half"}  # torch's classes of a parameter on the CPU

Pairs = list[tuple[str, list[str]]]  # how a child begins, and its lines


def as_tree(tree: ModuleTree, adapted: Iterable[Any], config: Mapping[str, Any], dtype: str | None = None) -> str:
    """`adapted`: entries with name, what (PEFT's class), in_features, out_features, rank (None: no LoRA) and
    parameters; `config`: the LoraConfig; `dtype`: that of the LoRA matrices and of token rows.
    """
    return "\n".join(_Printer(tree, adapted, config, dtype).lines(""))


class _Printer:
    def __init__(self, tree: ModuleTree, adapted: Iterable[Any], config: Mapping[str, Any], dtype: str | None) -> None:
        self.config, self.tensors = config, f"torch.{_TENSORS.get(dtype or 'F32', 'Float')}Tensor"
        self.modules = {module.name: module for module in tree.modules}
        self.children: dict[str, list[str]] = {}
        for name in self.modules:
            if name:
                self.children.setdefault(name.rpartition(".")[0], []).append(name)
        self.around: dict[str, Any] = {}
        self.tokens: dict[str, int] = {}
        for module in adapted:
            name = module.name.replace(_TOKENS, "").replace(".base_layer", "")
            if module.what == "TrainableTokensLayer":
                self.tokens[name] = module.parameters
            elif module.what != "TrainableTokensWrapper":
                self.around[name] = module

    def lines(self, name: str) -> list[str]:
        shape = self._weight(name) if name in self.tokens else ()
        if not shape:
            return self._adapted(name)
        rows = f"[{self.tensors} of size {self.tokens[name] // shape[-1]}x{shape[-1]}]"
        layer = [
            ("(base_layer): ", self._adapted(name)),
            _named("trainable_tokens_delta", [f"ParameterDict(  (default): Parameter containing: {rows})"]),
            _named("trainable_tokens_original", [f"BufferDict(  (default): Buffer containing: {rows})"]),
        ]
        wrapped = [("(original_module): ", ["None"]), ("(token_adapter): ", _block("TrainableTokensLayer", layer))]
        return _block("TrainableTokensWrapper", wrapped)

    def _weight(self, name: str) -> tuple[int, ...]:
        return next((p.shape for p in self.modules[name].parameters if p.name == "weight"), ())

    def _adapted(self, name: str) -> list[str]:
        wrapped = self.around.get(name)
        if wrapped is not None and wrapped.rank is not None:
            return _block(f"lora.{plain(wrapped.what)}", [*self._with_lora(wrapped, name)])
        if wrapped is not None and wrapped.what == "ModulesToSaveWrapper":
            saved = _block("ModuleDict", [("(default): ", self._plain(name))])
            return _block(wrapped.what, [("(original_module): ", self._plain(name)), ("(modules_to_save): ", saved)])
        return self._plain(name)

    def _plain(self, name: str) -> list[str]:
        module = self.modules.get(name) or Module(name, "Module", "other")
        inner = [(child.rpartition(".")[2], self.lines(child)) for child in self.children.get(name, ())]
        if not inner:
            return [_one_line(module)]
        pairs = _folded(inner) if module.cls == _FOLDED else [(f"({plain(key)}): ", text) for key, text in inner]
        return _block(plain(module.cls), pairs)

    def _with_lora(self, lora: Any, name: str) -> Iterator[tuple[str, list[str]]]:
        """What LoraLayer holds, in its order (peft 0.21.2, tuners/lora/layer.py)."""
        drop, in_embedding = self.config.get("lora_dropout"), lora.what == "Embedding"
        yield "(base_layer): ", self._plain(name)
        yield "(lora_dropout): ", _dict(f"Dropout(p={drop}, inplace=False)" if drop else "Identity()")
        matrices = [None, None] if in_embedding else self._matrices(lora, name)
        yield from (_named(f"lora_{letter}", _dict(matrix)) for letter, matrix in zip("AB", matrices, strict=True))
        sizes = ((lora.rank, lora.in_features), (lora.out_features, lora.rank))
        for letter, (rows, columns) in zip("AB", sizes, strict=True):
            held = f"  (default): Parameter containing: [{self.tensors} of size {rows}x{columns}]"
            yield _named(f"lora_embedding_{letter}", [f"ParameterDict({held if in_embedding else ''})"])
        of_its_own = in_embedding or lora.what.startswith("Conv")  # such a layer's class puts the prefix twice
        layer = f"lora.dora.lora.dora.Dora{lora.what}Layer()" if of_its_own else "lora.dora.DoraLinearLayer()"
        yield _named("lora_magnitude_vector", _dict(layer if self.config.get("use_dora") else None))

    def _matrices(self, lora: Any, name: str) -> list[str]:
        bias, r = bool(self.config.get("lora_bias")), lora.rank
        weight = self._weight(name)
        if lora.what.startswith("Conv"):
            kernel, points = tuple(weight[2:]), (1,) * len(weight[2:])
            second = f"{lora.what}({r}, {lora.out_features}, kernel_size={points}, stride={points}"
            first = f"{lora.what}({lora.in_features}, {r}, kernel_size={kernel}, bias=False)"
            return [first, f"{second})" if bias else f"{second}, bias=False)"]
        return [
            f"Linear(in_features={lora.in_features}, out_features={r}, bias=False)",
            f"Linear(in_features={r}, out_features={lora.out_features}, bias={bias})",
        ]


def _named(name: str, lines: list[str]) -> tuple[str, list[str]]:
    return f"({name}): ", lines


def _dict(held: str | None) -> list[str]:
    """A ModuleDict of the adapter `default`; empty without one."""
    return ["ModuleDict()"] if held is None else _block("ModuleDict", [("(default): ", [held])])


def _block(title: str, pairs: Iterable[tuple[str, list[str]]]) -> list[str]:
    lines = [f"{title}("]
    for opening, text in pairs:
        lines.append(_INDENT + opening + text[0])
        lines += [_INDENT + line for line in text[1:]]
    return [*lines, ")"]


def _folded(inner: Pairs) -> Pairs:
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
        inside = ", ".join(f"{plain(name)}: {shape}" for name, shape in shapes.items())
    return f"{plain(module.cls)}({inside})"
