"""What a class computes its shapes from: numbers of a config that remember how they came about.

with Trace(config) as trace:           # the config's numbers become Traced ones
    model = tiny.build(name, config)
trace.shape(model.lm_head.weight)      # (Sized(101, "vocab_size"), Sized(48, "hidden_size"))
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy
import torch
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedConfig

from estimator.architecture.learning.remembering import (
    AnyInt,
    FixedItems,
    How,
    Int,
    Items,
    Reckoning,
    Sized,
    Text,
    Traced,
    how_of,
    plain,
    remember,
)
from estimator.architecture.surveying.variations import is_field

_LONGEST_LOOP = 4096
_LITERAL = 3  # a larger plain number may be one that was lost on the way
_LEFT_ALONE = {"dtype", "torch_dtype", "id2label", "label2id", "transformers_version", "model_type", "per_layer_config"}
_CREATE = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn}


class Trace:
    """While it is entered, the config's numbers and what modelling files make of them are traced."""

    def __init__(self, config: Any = None) -> None:
        self.config = config
        self.log: dict[How, None] = {}  # comparisons, in order
        self.known: dict[tuple[str, str], None] = {}  # texts that a field was compared with
        self.lengths: dict[How, None] = {}  # how many times loops ran
        self.reads: dict[str, None] = {}  # paths of fields that were asked for
        self._shapes: dict[Any, tuple[Any, ...]] = {}
        self._kept: list[torch.Tensor] = []

    def __enter__(self) -> Trace:
        if self.config is not None:
            self._fields(self.config, "")
        self._names = {
            "int": AnyInt, "range": self._range, "enumerate": self._enumerate, "len": self._len, "sum": self._sum,
            "max": functools.partial(self._extreme, max), "min": functools.partial(self._extreme, min),
        }  # fmt: skip
        self._modules = _modelling_files(len(sys.modules))
        self._libraries = {"math": (math, Reckoning(math, self.log)), "np": (numpy, Reckoning(numpy, self.log))}
        for module in self._modules:
            module.__dict__.update(self._names)
            for name, (library, stand_in) in self._libraries.items():
                if module.__dict__.get(name) is library:
                    module.__dict__[name] = stand_in
        self._getter, self._labels = PreTrainedConfig.__getattribute__, PreTrainedConfig.num_labels
        PreTrainedConfig.__getattribute__ = self._reading(self._getter)
        PreTrainedConfig.num_labels = property(
            lambda config: remember(
                self._labels.fget(config), f"{config.__dict__.get('_traced', '')}num_labels", self.log
            ),
            self._labels.fset,
        )
        self._mode = _Shapes(self)
        self._mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._mode.__exit__(*error)
        PreTrainedConfig.__getattribute__, PreTrainedConfig.num_labels = self._getter, self._labels
        for module in self._modules:
            for name, value in self._names.items():
                if module.__dict__.get(name) is value:
                    del module.__dict__[name]
            for name, (library, stand_in) in self._libraries.items():
                if module.__dict__.get(name) is stand_in:
                    module.__dict__[name] = library

    def shape(self, tensor: torch.Tensor) -> tuple[int, ...]:
        """The tensor's shape, each dimension Sized where its how is known."""
        known = self._shapes.get(_key(tensor), (None,) * tensor.dim())
        return tuple(
            int(size) if one is None or (type(one) is int and one > _LITERAL) else Sized(int(size), how_of(one))
            for one, size in zip(known, tensor.shape, strict=True)
        )

    def saw(self, tensor: torch.Tensor, shape: tuple[Any, ...]) -> None:
        if tuple(size if one is None else plain(one) for one, size in zip(shape, tensor.shape, strict=False)) == tuple(
            tensor.shape
        ):
            self._kept.append(tensor)  # or another one gets its storage's address
            self._shapes[_key(tensor)] = shape

    def derived(self, tensor: torch.Tensor, sources: list[torch.Tensor], sizes: list[Any]) -> None:
        """A tensor made of others: a dimension as long as one of theirs, or as a size that was given, is that one."""
        shapes = [shape for one in sources if (shape := self._shapes.get(_key(one))) is not None]
        known = {plain(size): size for shape in shapes for size in shape if size is not None}
        known |= {plain(size): size for size in sizes if isinstance(size, Int)}
        made = [known.get(size) if size > 1 else 1 for size in tensor.shape]
        lost = [at for at, size in enumerate(made) if size is None]
        whole = shapes and None not in shapes[0] and math.prod(map(plain, shapes[0])) == tensor.numel()
        if whole and len(lost) == 1:  # reshaped
            others = math.prod(size for size in made if size is not None)
            made[lost[0]] = math.prod(shapes[0]) // others if others != 1 else math.prod(shapes[0])
        if any(isinstance(size, Traced) for size in made):
            self.saw(tensor, tuple(made))

    def _fields(self, config: Any, prefix: str) -> None:
        """Makes a config's fields, nested ones too, traced: each is its own how."""
        config.__dict__["_traced"] = prefix
        for key, value in list(vars(config).items()):
            if isinstance(value, PreTrainedConfig):
                self._fields(value, f"{prefix}{key}.")
            elif not key.startswith("_") and key not in _LEFT_ALONE:
                config.__dict__[key] = self.traced(value, f"{prefix}{key}")

    def traced(self, value: Any, path: str) -> Any:
        """A field's value that remembers its path; nested ones too."""
        if isinstance(value, dict):
            return {key: self.traced(one, f"{path}.{key}" if path else key) for key, one in value.items()}
        if isinstance(value, str):
            made = Text(value)
            made.path, made.known = path, self.known
            return made
        if not isinstance(value, (list, tuple)):
            return remember(value, path, self.log)
        return self._items(value, path)

    def _items(self, values: Any, how: How) -> Any:
        """A list's or tuple's elements that remember where they stand, in lists of lists too."""
        items = []
        for at, one in enumerate(values):
            place = ("item", how, at, len(values))
            is_list = isinstance(one, (list, tuple))
            items.append(self._items(one, place) if is_list else remember(one, place, self.log))
        made = FixedItems(items) if isinstance(values, tuple) else Items(items)
        made.how = how
        return made

    def _reading(self, getter: Any) -> Any:
        def read(config: Any, key: str) -> Any:
            held = object.__getattribute__(config, "__dict__")
            if (prefix := held.get("_traced")) is not None and is_field(config, key):
                real = type(config).attribute_map.get(key, key)
                if real in held or key == "num_labels" or not hasattr(type(config), real):
                    self.reads.setdefault(f"{prefix}{real}")
            return getter(config, key)

        return read

    def _range(self, *bounds: Any) -> Any:
        turns, end = range(*map(plain, bounds)), None
        if len(bounds) < 3:
            low, high = bounds if len(bounds) == 2 else (0, bounds[0])
            length = how_of(high) if how_of(low) == 0 else ("-", how_of(high), how_of(low))
            self.lengths.setdefault(length)
            end = how_of(high)
        elif turns and turns[0] >= 0:
            turn = ("-", ("index", 0, 0), how_of(bounds[0]))
            self.log.setdefault(("==", ("%", turn, how_of(bounds[2])), 0))
        if len(turns) > _LONGEST_LOOP:
            return turns
        last = turns[-1] if turns else 0
        return [remember(at, ("index", at, end if at == last else None), self.log) for at in turns]

    def _enumerate(self, values: Any, start: int = 0) -> Iterator[Any]:
        if isinstance(values, (Items, FixedItems)):
            self.lengths.setdefault(("len", values.how))
        for at, value in enumerate(values, plain(start)):
            is_last = isinstance(values, (Items, FixedItems)) and at == len(values) - 1
            end = ("len", values.how) if is_last and not start else None
            yield remember(at, ("index", at, end), self.log), value

    def _len(self, values: Any) -> int:
        if not isinstance(values, (Items, FixedItems)):
            return len(values)
        self.lengths.setdefault(("len", values.how))
        return remember(len(values), ("len", values.how), self.log)

    def _extreme(self, which: Any, *values: Any, **named: Any) -> Any:
        found = which(*values, **named)
        if len(values) < 2 or named or not all(isinstance(one, (int, float)) for one in values):
            return found
        if not any(isinstance(one, Traced) for one in values):
            return found
        return remember(plain(found), (which.__name__, *map(how_of, values)), self.log)

    def _sum(self, values: Any, start: Any = 0) -> Any:
        if isinstance(values, (Items, FixedItems)):
            return remember(sum(map(plain, values)), ("sum", values.how), self.log)
        return sum(values, start)


@functools.lru_cache(maxsize=1)
def _modelling_files(imported: int) -> list[Any]:
    """The files of models that are imported, looked up anew where more are."""
    return [module for name, module in list(sys.modules.items()) if name.startswith("transformers.models.") and module]


def _key(tensor: torch.Tensor) -> Any:
    return tensor.untyped_storage()._cdata, tuple(tensor.shape)


class _Shapes(TorchFunctionMode):
    """Notes the sizes that tensors are created with."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        made = func(*args, **kwargs)
        if not isinstance(made, torch.Tensor):
            return made
        if func in _CREATE or func is torch.full:
            shape = args if args else (kwargs.get("size", ()),)
            if func is torch.full or (shape and isinstance(shape[0], (list, tuple, torch.Size))):
                shape = shape[0] if isinstance(shape[0], (list, tuple, torch.Size)) else (shape[0],)
            self.trace.saw(made, tuple(shape))
        elif func is torch.arange:
            self.trace.saw(made, (_steps([one for one in args if isinstance(one, (int, float))]),))
        else:
            sizes = [one for each in args for one in (each if isinstance(each, (list, tuple)) else (each,))]
            self.trace.derived(made, [one for one in args if isinstance(one, torch.Tensor)], sizes)
        return made


def _steps(bounds: list[Any]) -> Any:
    """How many numbers arange gives."""
    low, high, step = {1: (0, *bounds, 1), 2: (*bounds, 1), 3: bounds}.get(len(bounds), (0, 0, 1))
    length = high if low == 0 else high - low
    return length if step == 1 else math.ceil(length / step)
