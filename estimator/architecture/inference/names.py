"""Run-time names and shapes of an unknown architecture, from the names that its file holds and the layout they show."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from estimator.architecture.config_fields import own_code
from estimator.architecture.layouts import LAYOUTS, LEGACY, Layout
from estimator.architecture.load import Loaded
from estimator.architecture.rename import natural_key
from estimator.checkpoint.checkpoint import Tensor

_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")
_EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj|w1|w2|w3)\.weight")
_ROLES = {"gate_proj": "gate", "w1": "gate", "up_proj": "up", "w3": "up", "down_proj": "down", "w2": "down"}


def run_time_parameters(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Loaded]:
    """By run-time name. Code that a repository brings itself (`auto_map`) keeps its names, and its experts apart."""
    if own_code(config):
        rename = _renamer(tensors, ())
        return {rename(name): _loaded(tensor) for name, tensor in tensors.items()}
    layouts = shown_layouts(config, tensors)
    rename = _renamer(tensors, layouts)
    found: dict[str, Loaded] = {}
    experts: dict[str, dict[str, list[Tensor]]] = {}
    for tensor in sorted(tensors.values(), key=lambda tensor: natural_key(tensor.name)):
        name = rename(tensor.name)
        match = _EXPERT.fullmatch(name)
        if match is None:
            found[name] = _loaded(tensor)
        else:
            experts.setdefault(match[1], {}).setdefault(_ROLES[match[3]], []).append(tensor)
    for owner, roles in experts.items():
        found.update(_fused(owner, roles))
    for layout in layouts:
        found = _merged(dict(_split(found, layout)), layout)
    return found


def shown_layouts(config: Mapping[str, Any], names: Iterable[str]) -> list[Layout]:
    """The layouts that the names show, with what their renames ask for filled in."""
    templates = dict.fromkeys(_INDEX.sub("#", name) for name in names)
    architecture = config.get("architectures")
    cls = str(architecture[0]) if isinstance(architecture, list) and architecture else ""
    kind = str(config.get("model_type")).replace("-", "_")
    found = []
    for layout in LAYOUTS:
        if layout.classes and not re.fullmatch(layout.classes, cls):
            continue
        matches = [next(filter(None, map(re.compile(need).match, templates)), None) for need in layout.needs]
        first = matches[0]
        if first is None or None in matches or any(map(re.compile(layout.lacks).match, templates)):
            continue
        base = f"{first[1]}." if first.re.groups and first[1] else ""
        renames = tuple(
            (pattern, new.replace("{base}", base).replace("{type}", kind)) for pattern, new in layout.renames
        )
        found.append(layout._replace(renames=renames))
    return found


def _renamer(names: Iterable[str], layouts: Iterable[Layout]) -> Callable[[str], str]:
    """From a stored name to the run-time name. Names that differ in their indices alone are renamed once."""
    templates = {template: template for template in (_INDEX.sub("#", name) for name in names)}
    renames = [(re.compile(old), new) for old, new in (*(pair for lay in layouts for pair in lay.renames), *LEGACY)]
    for template in templates:
        renamed = template
        for pattern, new in renames:
            renamed = pattern.sub(new, renamed, count=1)
        templates[template] = renamed

    def rename(name: str) -> str:
        renamed = templates[_INDEX.sub("#", name)]
        indices = iter(_INDEX.findall(name))
        return re.sub("#", lambda _: next(indices), renamed) if "#" in renamed else renamed

    return rename


def _loaded(tensor: Tensor) -> Loaded:
    return Loaded(tensor.shape, tensor.dtype, (tensor.name,))


def _fused(owner: str, roles: Mapping[str, list[Tensor]]) -> dict[str, Loaded]:
    """Experts as transformers keeps them: gates and ups in one parameter, downs in another."""
    found = {}
    if "gate" in roles and "up" in roles:
        both = roles["gate"] + roles["up"]
        rows, columns = roles["gate"][0].shape
        shape = (len(roles["gate"]), rows + roles["up"][0].shape[0], columns)
        found[f"{owner}.gate_up_proj"] = Loaded(shape, both[0].dtype, tuple(tensor.name for tensor in both))
    elif "up" in roles:
        found[f"{owner}.up_proj"] = _stacked(roles["up"])
    if "down" in roles:
        found[f"{owner}.down_proj"] = _stacked(roles["down"])
    return found


def _stacked(tensors: list[Tensor]) -> Loaded:
    return Loaded((len(tensors), *tensors[0].shape), tensors[0].dtype, tuple(tensor.name for tensor in tensors))


def _split(found: Mapping[str, Loaded], layout: Layout) -> Iterator[tuple[str, Loaded]]:
    """Modules that share the rows of one in the file, evenly."""
    for name, loaded in found.items():
        owner, _, leaf = name.rpartition(".")
        targets = next((new for old, new in layout.splits if owner.endswith(f".{old}")), ("",))
        if len(targets) == 1 or loaded.shape is None or loaded.shape[0] % len(targets):
            yield name, loaded
            continue
        shape = (loaded.shape[0] // len(targets), *loaded.shape[1:])
        for target in targets:
            yield f"{owner.rpartition('.')[0]}.{target}.{leaf}", loaded._replace(shape=shape)


def _merged(found: dict[str, Loaded], layout: Layout) -> dict[str, Loaded]:
    """One parameter that has the rows of several in the file."""
    for sources, target in layout.merges:
        for name in [name for name in found if name.endswith(f".{sources[0]}")]:
            owner = name.removesuffix(sources[0])
            parts = [found[owner + source] for source in sources if owner + source in found]
            shapes = [part.shape for part in parts if part.shape is not None]
            if len(shapes) == len(sources):
                shape = (sum(rows for rows, *_ in shapes), *shapes[0][1:])
                for source in sources:
                    del found[owner + source]
                found[owner + target] = Loaded(shape, parts[0].dtype, tuple(n for part in parts for n in part.tensors))
    return found
