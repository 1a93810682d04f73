"""layer_replication: a range of layers repeated, each copy sharing its weights with the layer that it copies.

peft 0.21.2: replicate_layers (peft/tuners/tuners_utils.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from estimator.architecture.module import Module, ModuleTree, QuantisedLayer, full_name
from estimator.errors import InvalidLoraError
from estimator.lora.index import TreeIndex

MAX_LAYERS = 10_000


def replicated(index: TreeIndex, layer_map: Sequence[Sequence[int]]) -> ModuleTree:
    """The tree with its layers as `layer_map` says; ranges are [start, end). Raises InvalidLoraError."""
    stack = _stack(index)
    chosen = _chosen(layer_map, _count(index, stack))
    names: dict[str, list[str]] = {}
    for name in index.children(stack):
        names.setdefault(name[len(stack) + 1 :].partition(".")[0], []).append(name)
    copies = [module for place, source in enumerate(chosen) for module in _copies(index, stack, names, source, place)]
    modules: list[Module] = []
    for module in index.tree.modules:
        if module.name == stack:
            modules += [module, *copies]
        elif not module.name.startswith(stack + "."):
            modules.append(module)
    quantised = {name: layer for name, layer in index.tree.quantised.items() if not name.startswith(stack + ".")}
    for place, source in enumerate(chosen):
        old, new = f"{stack}.{source}", f"{stack}.{place}"
        here = (name for name in names.get(str(source), ()) if name in index.tree.quantised)
        quantised |= {new + name[len(old) :]: index.tree.quantised[name] for name in here}
    tied = _tied(index, stack, chosen, copies, quantised)
    return index.tree._replace(modules=tuple(modules), tied=tied, quantised=quantised)


def _stack(index: TreeIndex) -> str:
    here = ""

    def child(name: str) -> str:
        return full_name(here, name)

    while child("model") in index.modules:
        here = child("model")
    if child("bert") in index.modules:
        here = child("bert")
    stack = next((child(name) for name in ("layers", "encoder.layer", "h") if child(name) in index.modules), None)
    if stack is None or index.modules[stack].cls != "ModuleList":
        raise InvalidLoraError(
            "layer_replication finds no stack of layers: PEFT knows those of Llama, Bert and Falcon.",
            where="layer_replication",
            way_out="leave out layer_replication",
        )
    return stack


def _count(index: TreeIndex, stack: str) -> int:
    return sum("." not in name[len(stack) + 1 :] for name in index.children(stack))


def _chosen(layer_map: Sequence[Sequence[int]], count: int) -> list[int]:
    chosen: list[int] = []
    for pair in layer_map:
        if len(pair) != 2 or not all(isinstance(end, int) for end in pair):
            raise _refused(f"{list(pair)} is no pair of layer numbers", "write pairs, such as [[0, 4], [2, 5]]")
        begin, end = pair
        if begin < -count or end > count:
            raise _refused(f"[{begin}, {end}] goes beyond the model's {count} layers", f"stay between 0 and {count}")
        if len(chosen) + end - begin > MAX_LAYERS:
            raise _refused(f"it makes more than {MAX_LAYERS:,} layers", "ask for fewer")
        chosen += [layer % count for layer in range(begin, end)]
    return chosen


def _refused(why: str, way_out: str) -> InvalidLoraError:
    return InvalidLoraError(f"layer_replication: {why}.", where="layer_replication", way_out=way_out)


def _copies(index: TreeIndex, stack: str, names: dict[str, list[str]], source: int, place: int) -> list[Module]:
    old, new = f"{stack}.{source}", f"{stack}.{place}"
    return [index.modules[name]._replace(name=new + name[len(old) :]) for name in names.get(str(source), ())]


def _tied(
    index: TreeIndex, stack: str, chosen: list[int], copies: list[Module], quantised: Mapping[str, QuantisedLayer]
) -> dict[str, str]:
    """Ties with the first copy of each layer in the layer's place; later copies are tied to it."""
    first = {source: place for place, source in reversed(list(enumerate(chosen)))}

    def moved(name: str) -> str | None:
        if not name.startswith(stack + "."):
            return name
        number, _, rest = name[len(stack) + 1 :].partition(".")
        place = first.get(int(number))
        return None if place is None else f"{stack}.{place}.{rest}"

    pairs = ((moved(name), moved(source)) for name, source in index.tree.tied.items())
    tied = {name: source for name, source in pairs if name and source}
    for module in copies:
        number, _, rest = module.name[len(stack) + 1 :].partition(".")
        place = first[chosen[int(number)]]
        if place != int(number):
            middle = f".{rest}" if rest else ""
            packed = quantised[module.name].parameters if module.name in quantised else ()
            own = {p.name for p in (*module.parameters, *packed)}
            tied.update({f"{module.name}.{name}": f"{stack}.{place}{middle}.{name}" for name in own})
    return tied
