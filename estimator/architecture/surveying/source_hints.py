"""What a model's source says of its config: fields that it branches on, texts that it compares them with.

It reads the source files of the modules that a built model is made of, as syntax trees: in
`if "layer_norm" in self.norm_rel_ebd` the field `norm_rel_ebd` is a switch, and "layer_norm" a value of it.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

_TEXT = re.compile(r"[A-Za-z][\w|.\-]{1,30}")


class Hints(NamedTuple):
    """By the last part of a field's path, since a model seldom says which section it reads."""

    switches: frozenset[str] = frozenset()  # read where the code branches
    texts: dict[str, tuple[str, ...]] = {}  # what fields are compared with, or look up
    asked: frozenset[str] = frozenset()  # by getattr(config, "..."), which a config may lack


def hints_of(model: Any) -> Hints:
    """The hints of all source files of transformers that the model's modules come from."""
    names = {type(module).__module__ for module in model.modules()}
    files = sorted(name for name in names if name.startswith("transformers.models."))
    found = [_of_file(sys.modules[name].__file__) for name in files]
    texts: dict[str, tuple[str, ...]] = {}
    for hints in found:
        for field, values in hints.texts.items():
            texts[field] = tuple(dict.fromkeys((*texts.get(field, ()), *values)))
    switches = frozenset().union(*(hints.switches for hints in found))
    return Hints(switches, texts, frozenset().union(*(hints.asked for hints in found)))


@functools.cache
def _of_file(path: str) -> Hints:
    return hints_in(Path(path).read_text(encoding="utf-8"))


def hints_in(source: str) -> Hints:
    """The hints of one file's text."""
    tree = ast.parse(source)
    tables = {
        target.id: tuple(_texts(node.value.keys))
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    switches: set[str] = set()
    texts: dict[str, dict[str, None]] = {}
    asked: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.If, ast.IfExp, ast.While)):
            switches |= set(_fields(node.test))
        elif isinstance(node, ast.comprehension):
            switches |= {field for test in node.ifs for field in _fields(test)}
        elif isinstance(node, ast.Compare):
            _add(texts, _fields(node), _texts(ast.walk(node)))
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in tables:
            _add(texts, _fields(node.slice), tables[node.value.id])
        elif (name := _asked(node)) is not None:
            asked.add(name)
    return Hints(frozenset(switches), {field: tuple(values) for field, values in texts.items()}, frozenset(asked))


def _add(texts: dict[str, dict[str, None]], fields: Iterable[str], values: Iterable[str]) -> None:
    values = list(values)
    for field in fields:
        texts.setdefault(field, {}).update(dict.fromkeys(values))


def _fields(node: ast.AST) -> Iterator[str]:
    """Names of attributes and variables, and what getattr asks for."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute):
            yield inner.attr
        elif isinstance(inner, ast.Name):
            yield inner.id
        elif (name := _asked(inner)) is not None:
            yield name


def _asked(node: ast.AST) -> str | None:
    """The field in getattr(config, "field", ...)."""
    call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr")
    if not call or len(node.args) < 2 or "config" not in ast.unparse(node.args[0]):
        return None
    name = node.args[1]
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def _texts(nodes: Iterable[ast.AST | None]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _TEXT.fullmatch(node.value):
            yield node.value
