"""Modules from a class's structure and what a checkpoint holds for it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from estimator.architecture.conditions import Lookup, Place, holds
from estimator.architecture.facts import ClassFacts
from estimator.architecture.fresh import fill
from estimator.architecture.load import Load, Loaded, any_child, child_of, count_of
from estimator.architecture.module import Module, Parameter, full_name
from estimator.architecture.sharing import Branch, Sharing
from estimator.architecture.structure import ACTIVATION, Child, Slot, Structure
from estimator.errors import UnsupportedError
from estimator.notes import Note

_MOST = 10_000  # modules of one list, as by_formulas.py has it


class Grown(NamedTuple):
    """The modules of a class, grown over what a checkpoint holds."""

    modules: tuple[Module, ...]
    transposed: tuple[str, ...]  # parameters of experts kept (experts, in, out)
    in_turn: tuple[tuple[str, str], ...] = ()  # modules of layers that share in turn, with the one that is stored
    notes: tuple[Note, ...] = ()
    open_parts: tuple[str, ...] = ()  # modules below which names and shapes alone tell
    absent: tuple[str, ...] = ()  # parameters that every model of the class has and no file holds


def grow(facts: ClassFacts, loaded: Load, lookup: Lookup, config: Mapping[str, Any]) -> Grown:
    """Every module, in order. A parameter that the checkpoint lacks has the shape that config.json gives it.

    Raises UnsupportedError for a list of more modules than are laid out.
    """
    root = branches(loaded.parameters)
    sharing = Sharing(facts, lookup, root)
    grower = _Grower(facts, lookup, sharing)
    grower.module("", facts.root, root, Place())
    modules, notes = fill(grower.modules, grower.missing, facts, lookup, config)
    return Grown(
        modules=tuple(modules),
        transposed=tuple(grower.transposed),
        in_turn=tuple(sharing.pairs),
        notes=tuple(notes),
        open_parts=tuple(grower.open_parts),
        absent=tuple(full_name(modules[at].name, name) for at, name in grower.absent),
    )


def branches(parameters: Mapping[str, Loaded]) -> Branch:
    """Full names as a tree of their parts."""
    root: Branch = {}
    for name, value in parameters.items():
        *path, leaf = name.split(".")
        at = root
        for part in path:
            at = at.setdefault(part, {})
        at[leaf] = value
    return root


class _Grower:
    def __init__(self, facts: ClassFacts, lookup: Lookup, sharing: Sharing) -> None:
        self.facts, self.lookup, self.sharing = facts, lookup, sharing
        self.modules: list[Module] = []
        self.missing: list[tuple[int, Slot, bool]] = []  # module's place, slot, whether it is a buffer
        self.absent: list[tuple[int, str]] = []  # module's place, parameter
        self.transposed: list[str] = []
        self.open_parts: list[str] = []

    def module(self, name: str, structure: Structure, branch: Branch, place: Place) -> None:
        """Adds the module and all below it."""
        at = len(self.modules)
        parameters = self._tensors(at, structure.parameters, branch, False)
        buffers = self._tensors(at, structure.buffers, branch, True)
        self.modules.append(
            Module(
                name, self._class(structure), structure.kind, parameters, buffers, self._groups(structure, parameters)
            )
        )
        if structure.transposed:
            self.transposed += [f"{name}.{parameter.name}" for parameter in parameters]
        before = f"{name}." if name else ""
        if structure.is_open:
            from estimator.architecture.inference.infer import below_open  # few need it: it takes time to import

            self.modules[at:] = below_open(name, branch)
            self.open_parts.append(name)
            return
        for child in structure.children:
            names = self._names(child, branch, place, name)
            if child is any_child(structure):
                names = [(part, place) for part, value in branch.items() if isinstance(value, dict)] or names
            for part, its_place in names:
                below = branch.get(part)
                below = self.sharing.branch(before + part, below if isinstance(below, dict) else {})
                option = self._option(child, below, its_place, anew=not branch)
                if option is not None:
                    self.module(before + part, option, below, its_place)

    def _class(self, structure: Structure) -> str:
        if not structure.cls.startswith(ACTIVATION):
            return structure.cls
        return self.facts.activations.get(str(self.lookup(structure.cls.removeprefix(ACTIVATION))), "Activation")

    def _groups(self, structure: Structure, parameters: tuple[Parameter, ...]) -> int:
        text = structure.groups
        if not text:
            return 1
        if text == "out":
            return next((groups for own in parameters[:1] for groups in own.shape[:1]), 1)
        value = int(text) if text.isdigit() else self.lookup(text)
        return value if isinstance(value, int) else 1

    def _tensors(self, at: int, slots: tuple[Slot, ...], branch: Branch, buffer: bool) -> tuple[Parameter, ...]:
        found = []
        for slot in slots:
            loaded = branch.get(slot.name)
            if isinstance(loaded, Loaded) and loaded.shape is not None:
                found.append(
                    Parameter(slot.name, loaded.shape, slot.dtype or loaded.dtype, slot.dtype is not None, slot.saved)
                )
            elif isinstance(loaded, Loaded) or slot.always or (buffer and not slot.saved):
                self.missing.append((at, slot, buffer))
                if not buffer and loaded is None:
                    self.absent.append((at, slot.name))
        return tuple(found)

    def _names(self, child: Child, branch: Branch, place: Place, parent: str) -> list[tuple[str, Place]]:
        """The children that are there, each with its place."""
        if child.name.endswith("*"):
            return self._indices(child, branch, place, parent)
        return [(child.name, place)] if self._there(child, branch, place, parent) else []

    def _indices(self, child: Child, branch: Branch, place: Place, parent: str) -> list[tuple[str, Place]]:
        stem = child.name[:-1]
        ends = [
            part[len(stem) :] for part, below in branch.items() if part.startswith(stem) and isinstance(below, dict)
        ]
        stored = sorted(int(end) for end in ends if end.isdigit())
        count = count_of(child.when, self.lookup) if child.when is not None else None
        least = stored[-1] + 1 if stored else 0
        total = max(count or 0, least)
        gaps = any(map(_weightless, (option for _, option in child.options)))
        before = f"{parent}.{stem}" if parent else stem
        if total > _MOST:
            raise UnsupportedError(
                f"{total:,} modules would be called {before}0 and on, and lora-size lays out {_MOST:,} at most.",
                where="config.json and the headers",
                way_out="check that config.json belongs to these weights: the limit is lora-size's own",
            )
        there = stored if stem else range(least)  # a list has no gaps: what is not stored below the last is made anew
        held = {*there, *(index for index in range(count or 0) if self.sharing.is_tied(f"{before}{index}"))}
        indices = range(total) if gaps else sorted(held)
        return [(f"{stem}{index}", place.inner(index, total)) for index in indices]

    def _there(self, child: Child, branch: Branch, place: Place, parent: str) -> bool:
        if isinstance(branch.get(child.name), dict):
            return True
        if child.when is None or child.when == "!":
            return child.when is None and self.sharing.is_tied(full_name(parent, child.name))
        if child.when[:1] == "+":
            return child.when[1:] in branch
        return holds(child.when, self.lookup, place)

    def _option(self, child: Child, branch: Branch, place: Place, *, anew: bool) -> Structure | None:
        """The structure that fits the weights; where several do, the one whose condition holds.

        anew: nothing of the module around it is stored, so that a head without weights fits no better than one of them.
        """
        if len(child.options) == 1:
            return child.options[0][1]
        ranked = []
        for order, (condition, structure) in enumerate(child.options):
            falsity = 1 if condition == "!" else 2 * (not holds(condition, self.lookup, place))
            misfit = self._misfit(structure, branch)
            ranked.append(((falsity, misfit) if anew else (misfit, falsity), order, structure))
        return min(ranked, key=lambda rank: rank[:2])[2]

    def _misfit(self, structure: Structure, branch: Branch, depth: int = 2) -> int:
        """How many names the structure does not have or misses, a few levels deep."""
        wrong = 0
        slots = {slot.name: slot for slot in structure.parameters + structure.buffers}
        children = {child.name: child for child in structure.children}
        for part, below in branch.items():
            if isinstance(below, dict):
                child = child_of(children, part)
                if child is None:
                    wrong += 1
                elif depth:
                    wrong += min(self._misfit(option, below, depth - 1) for _, option in child.options)
            else:
                wrong += self._wrong_slot(slots.get(part), below)
        lacking = sum(1 for slot in slots.values() if slot.always and slot.saved and slot.name not in branch)
        absent = sum(
            1 for child in structure.children if child.when == "" and child.name not in branch and _weighs(child)
        )
        return wrong + lacking + absent

    @staticmethod
    def _wrong_slot(slot: Slot | None, loaded: Loaded) -> int:
        if slot is None:
            return 1
        return int(slot.dimensions is not None and loaded.shape is not None and len(loaded.shape) != slot.dimensions)


def _weightless(structure: Structure) -> bool:
    """Whether no checkpoint holds anything of this structure."""
    own = any(slot.saved for slot in structure.parameters + structure.buffers)
    return not own and all(_weightless(option) for child in structure.children for _, option in child.options)


def _weighs(child: Child) -> bool:
    """Whether a checkpoint holds anything of this child."""
    return all(
        any(slot.saved and slot.always for slot in option.parameters + option.buffers)
        or any(_weighs(below) for below in option.children if below.when == "")
        for _, option in child.options
    )
