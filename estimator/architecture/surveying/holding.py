"""What a class holds once from_pretrained has loaded it in 16 bits: shapes, kinds and dtypes, of each tensor by the
modules that it is in.

Rules' source: transformers 5.23.0, modeling_utils.py `_get_dtype_plan` and core_model_loading.py.
"""

from __future__ import annotations

import contextlib
import pickle
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers.core_model_loading import build_glob_alternation

from estimator.architecture.surveying import tiny
from estimator.architecture.surveying.observe import BUILD_DTYPE, kind_of, ties_of

_LAYERS = re.compile(r"dense|sparse|moe|expert|_types|pattern|num_(hidden_)?layers")  # what chooses kinds of layers
_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")
Place = tuple[str, str]  # a module class of transformers, and what is in it by its name from there, # for an index


class Tensor(NamedTuple):
    shape: tuple[int, ...]
    kind: str  # of the module that owns it; "buffer"
    tied: str | None
    dtypes: tuple[str, ...]  # loaded in bfloat16, in float16
    places: tuple[Place, ...]  # of the modules around it, the innermost first


class Holding(NamedTuple):
    """A class under several configs."""

    fields: frozenset[str]  # dotted paths of its smallest config
    tensors: Mapping[str, Mapping[str, Tensor]]  # which config -> full name -> tensor


def holding(name: str, varied: bool) -> Holding:
    """Raises what transformers raises where the class is not built."""
    found = {key: held(name, fields) for key, fields in configs(name, varied).items()}
    return Holding(fields_of(name), {key: tensors for key, tensors in found.items() if tensors})


def configs(name: str, varied: bool) -> dict[str, dict[str, Any]]:
    """Keyword arguments of the class's config, by what tells them apart. varied: the smallest with another value of a
    field that chooses kinds of layers as well.
    """
    base = tiny.base_fields(name)
    found = {"": base, **{str(at): fields for at, fields in enumerate(tiny.other_bases(name))}}
    for path, value in tiny.changes(tiny.make(name, base)) if varied else ():
        if _LAYERS.search(path[-1]):
            every = [value[-1]] * len(value) if isinstance(value, list) and value else value  # layers all of one kind
            found[f"{'.'.join(path)} {every}"] = tiny.changed(base, path, every)
    return found


def write_holdings(path: Path, names: Iterable[str], files: Collection[str]) -> None:
    """A pickle a class that this release builds: its name, whether it was varied, its holding. One class of each
    config class is varied, where its file is one of these (`llama/modeling_llama.py`).
    """
    seen: set[type] = set()
    with path.open("wb") as stream:
        for name in names:
            with contextlib.suppress(Exception):  # what cannot be built here
                config = tiny.config_class(name)
                file = "/".join(tiny.class_of(name).__module__.split(".")[-2:]) + ".py"
                varied = file in files and config not in seen
                pickle.dump((name, varied, holding(name, varied)), stream)
                seen.add(config)


def fields_of(name: str) -> frozenset[str]:
    """The dotted paths of what the class's smallest config has."""
    return frozenset(_paths(tiny.make(name, tiny.base_fields(name)).to_dict()))


def _paths(config: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{before}{key}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{before}{key}.")


def held(name: str, fields: Mapping[str, Any]) -> dict[str, Tensor]:
    """Full name -> tensor; {} where the config is refused."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(BUILD_DTYPE)
    try:
        with contextlib.suppress(Exception):
            return _held(tiny.build(name, tiny.make(name, fields)))
    finally:
        torch.set_default_dtype(previous)
    return {}


def _held(model: Any) -> dict[str, Tensor]:
    halves = torch.bfloat16, torch.float16
    plans = [_plan(model, half) for half in halves]
    modules, kept, ties = dict(model.named_modules()), set(model.state_dict()), ties_of(model)
    buffers = {id(value) for value in model.buffers()}
    found = {}
    every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for key, value in every:
        fixed = None if value.dtype == BUILD_DTYPE else value.dtype
        dtypes = [
            torch.float32 if key in kept and plan is not None and plan.search(key) else fixed or half
            for plan, half in zip(plans, halves, strict=True)
        ]
        kind = "buffer" if id(value) in buffers else kind_of(modules[key.rpartition(".")[0]])
        places = tuple(_places(key, modules))
        found[key] = Tensor(tuple(value.shape), kind, ties.get(key), tuple(map(str, dtypes)), places)
    return found


def _plan(model: Any, dtype: torch.dtype) -> Any:
    patterns = model._get_dtype_plan(dtype)
    return build_glob_alternation(list(patterns))[0] if patterns else None


def _places(key: str, modules: Mapping[str, Any]) -> Iterator[Place]:
    outer = key
    while outer:
        outer = outer.rpartition(".")[0]
        if type(modules[outer]).__module__.startswith("transformers."):
            yield type(modules[outer]).__name__, _INDEX.sub("#", key[len(outer) :].lstrip("."))
