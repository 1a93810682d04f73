"""Modules that a class's formulas make of a config: the class and the towers that it exchanges, and the growing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from estimator.architecture.choose import check_labels
from estimator.architecture.conditions import Place
from estimator.architecture.config_fields import check_nesting, check_region, get, lookup_for
from estimator.architecture.facts import ClassOutline, Tower, class_outline, line
from estimator.architecture.formula import Unfit, choose, evaluate, met
from estimator.architecture.layer_kinds import check_layer_kinds
from estimator.architecture.module import Module, Parameter
from estimator.architecture.shapes import shapes_of
from estimator.architecture.structure import ACTIVATION, Slot
from estimator.errors import UnsupportedError

_MOST_LAYERS = 10_000
_OF_PLACE = re.compile(r"[#^@<>]|\b(in|out) ")  # what looks at an index, in formulas and conditions
_SWITCH = re.compile(r"\?[\w.]+")


class Model:
    """A class under a config: its formulas, its fields, and the towers that config.json exchanges.

    transformers 5.23.0, `AutoModel.from_config(config.text_config)`: the section's model type tells the class.
    """

    def __init__(self, name: str, facts: Mapping[str, Any], config: Mapping[str, Any], num_labels: int | None) -> None:
        self.name, self.facts, self.config = name, facts, config
        said = class_outline(name)
        if said is None:
            raise Unfit(f"{name} has formulas and no outline")
        self.said: ClassOutline = said
        self.towers: dict[str, tuple[Tower, Model]] = {}
        for tower in self.said.towers:
            section = get(config, tower.section)
            model_type = section.get("model_type", tower.model_type) if isinstance(section, Mapping) else None
            if model_type not in (None, tower.model_type):
                self.towers[tower.module] = tower, _tower(tower, section)
        self._inner = {tower.section: model for tower, model in self.towers.values()}
        self._lookup = lookup_for(config, facts, num_labels)
        check_labels(self.said, self._lookup("num_labels"))
        check_layer_kinds(config, facts, self.lookup)
        check_nesting(facts, config, self.lookup)
        check_region(facts, self.lookup, tuple(self._inner))

    def lookup(self, path: str) -> Any:
        """The field's value, by the tower's own defaults where it lies in one."""
        for section, model in self._inner.items():
            if path.startswith(f"{section}."):
                return model.lookup(path.removeprefix(f"{section}."))
        return self._lookup(path)


def _tower(tower: Tower, section: Mapping[str, Any]) -> Model:
    name = tower.class_for(section["model_type"])
    facts = shapes_of(name) if name else None
    if name is None or facts is None:
        raise Unfit(f"{tower.section}.model_type is {section['model_type']!r}")
    return Model(name, facts, section, None)


class Grower:
    """Walks a class's formulas and collects the modules that they make of a config."""

    def __init__(self, model: Model, dtype: str) -> None:
        self.model, self.nodes, self.lookup, self.dtype = model, model.facts["n"], model.lookup, dtype
        self.modules: list[Module] = []
        self.transposed: list[str] = []
        self.unsized: list[tuple[str, Slot]] = []
        self._minding: dict[int, bool] = {}

    def module(self, name: str, number: int, place: Place, count: int | None = None) -> None:
        """Adds the module and all below it. `count`: so many parameters, where it is a list of them."""
        if name in self.model.towers:
            self._part(name, self.model.towers[name][1])
            return
        cls, kind, parameters, buffers, groups, transposed, children = self.nodes[number]
        if count is not None:
            parameters = [[str(index), *parameters[0][1:]] for index in range(count)]
        kept = tuple(self._tensor(slot, place) for slot in parameters if met(slot[1], self.lookup, place))
        if kind == "Linear" and len(kept) == 2:  # a bias is as long as the output, whatever was seen beside it
            kept = kept[0], kept[1]._replace(shape=kept[0].shape[:1])
        held = self._buffers(name, buffers, place)
        self.modules.append(Module(name, self._class(cls), kind, kept, held, self._size(groups, place)))
        before = f"{name}." if name else ""
        if transposed:
            self.transposed += [f"{before}{parameter.name}" for parameter in kept]
        for child, when, options in children:
            alike: dict[int, range] = {}  # where the first one of each kind stands
            for part, at in self._children(child, when, place):
                option = choose(options, self.lookup, at)
                if option in alike:
                    self._again(alike[option], before + part)
                else:
                    done = self._done(before + part, option, at, self._as_many(option, when))
                    if done is not None:
                        alike[option] = done

    def _as_many(self, number: int, when: Any) -> int | None:
        """How many parameters a list of them has: the number that switches it on (GIT's images of a video)."""
        if self.nodes[number][0] != "ParameterList" or not isinstance(when, str) or not _SWITCH.fullmatch(when):
            return None
        return len(self._turns(when[1:], Place()))

    def _done(self, name: str, number: int, place: Place, count: int | None = None) -> range | None:
        """Adds the module and all below it; where they stand if it is the same at any other place."""
        begun, others = len(self.modules), len(self.transposed) + len(self.unsized)
        self.module(name, number, place, count)
        again = len(self.transposed) + len(self.unsized) == others and not self._minds_place(number)
        return range(begun, len(self.modules)) if again else None

    def _again(self, like: range, name: str) -> None:
        """Adds modules like those, under another name."""
        cut = len(self.modules[like.start].name)
        self.modules += [Module(name + m.name[cut:], *m[1:]) for m in self.modules[like.start : like.stop]]

    def _minds_place(self, number: int) -> bool:
        """Whether anything of the module or below it may depend on an index of a list that it is in."""
        if number not in self._minding:
            *_, parameters, buffers, groups, _, children = self.nodes[number]
            options = [option for *_, options in children for option in options]
            texts = repr(
                (parameters, buffers, groups, [when for _, when, _ in children], [when for when, _ in options])
            )
            below = any(self._minds_place(option) for _, option in options)
            self._minding[number] = below or _OF_PLACE.search(texts) is not None
        return self._minding[number]

    def _part(self, name: str, model: Model) -> None:
        part = Grower(model, self.dtype)
        part.module("", len(model.facts["n"]) - 1, Place())
        before = f"{name}."
        self.modules += [m._replace(name=f"{before}{m.name}".removesuffix(".")) for m in part.modules]
        self.transposed += [before + parameter for parameter in part.transposed]
        self.unsized += [(f"{before}{module}".removesuffix("."), slot) for module, slot in part.unsized]

    def _buffers(self, name: str, slots: Sequence[Any], place: Place) -> tuple[Parameter, ...]:
        """Those whose size is known; the others are kept for other rules."""
        found = []
        for slot in slots:
            if met(slot[1], self.lookup, place):
                try:
                    found.append(self._tensor(slot, place))
                except Unfit:
                    self.unsized.append((name, Slot(slot[0], len(slot[2]), True, slot[4], slot[3])))
        return tuple(found)

    def _children(self, child: str, when: Any, place: Place) -> list[tuple[str, Place]]:
        """The name and place of each that the child stands for."""
        if not child.endswith("*"):
            return [(child, place)] if met(when, self.lookup, place) else []
        if isinstance(when, dict):  # the stages' blocks in one list
            stages = self._turns(when["stages"], place)
            turns = [turn for stage in stages for turn in self._turns(when["each"], stage)]
        else:
            turns = self._turns(when, place)
        return [(f"{child[:-1]}{index}", turn) for index, turn in enumerate(turns)]

    def _turns(self, size: Any, place: Place) -> list[Place]:
        count = self._size(size, place)
        if count > _MOST_LAYERS:
            raise UnsupportedError(
                f"{count:,} modules in one list are more than the {_MOST_LAYERS:,} that lora-size lays out.",
                where="config.json",
                way_out="check the number of layers in config.json or in --set: the limit is lora-size's own",
            )
        return [place.inner(index, count) for index in range(count)]

    def _class(self, cls: str) -> str:
        if not cls.startswith(ACTIVATION):
            return cls
        name = str(self.lookup(cls.removeprefix(ACTIVATION)))
        if name not in line("$activations"):
            raise Unfit(f"{name[:80]!r} is no activation that is known")
        return line("$activations")[name]

    def _tensor(self, slot: Sequence[Any], place: Place) -> Parameter:
        shape = tuple(self._size(size, place) for size in slot[2])
        dtype = slot[3]
        return Parameter(slot[0], shape, dtype or self.dtype, dtype is not None, slot[4] if len(slot) > 4 else True)

    def _size(self, size: Any, place: Place) -> int:
        return evaluate(choose(size, self.lookup, place) if isinstance(size, list) else size, self.lookup, place)
