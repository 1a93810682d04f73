"""Many observations of a module into one structure that fits them all."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from estimator.architecture.structure import ACTIVATION, Child, Slot, Structure
from estimator.architecture.surveying.counted import counted, stem_of, weighs
from estimator.architecture.surveying.discover import Setting, find_condition
from estimator.architecture.surveying.observe import Seen, SeenTensor

_MOST_FORMS = 5
_CHANCE = 6  # a list of more elements is as long as another one hardly by chance


class Sight(NamedTuple):
    seen: Seen
    setting: Setting


class Merger:
    """Merges under one set of varying fields; `unresolved` lists what no condition tells apart."""

    def __init__(self, varying: Sequence[str], activations: dict[str, str]) -> None:
        self.varying = tuple(varying)
        self.activations = activations
        self.unresolved: list[str] = []

    def merge(self, sights: Sequence[Sight], where: str = "") -> Structure:
        """The structure of one module class, from all the times that it was seen at a place."""
        first = sights[0].seen
        return Structure(
            cls=first.cls,
            kind=first.kind,
            parameters=_slots([sight.seen.parameters for sight in sights]),
            buffers=_slots([sight.seen.buffers for sight in sights]),
            groups=self._groups(sights),
            children=tuple(self._children(sights, where)),
            transposed=first.transposed,
            is_open=first.is_open,
        )

    def _children(self, sights: Sequence[Sight], where: str) -> list[Child]:
        if _is_list(sights):
            return [self._any_index("", sights, f"{where}.*")]
        if stem := _numbered(sights):
            return [self._any_index(stem, sights, f"{where}.{stem}*")]
        children = []
        stems = counted([sight.seen for sight in sights])
        for name in in_order([[name for name, _ in sight.seen.children] for sight in sights]):
            if (stem := stem_of(name)) in stems:
                if name == stems[stem]:
                    children.append(self._any_index(stem, _only(stem, sights), f"{where}.{stem}*"))
                continue
            there = [Sight(dict(sight.seen.children)[name], sight.setting) for sight in sights if _has(sight, name)]
            absent = [sight.setting for sight in sights if not _has(sight, name)]
            when = self._presence(there, absent, f"{where}.{name}")
            if when not in ("", None) and (other := _companion(name, sights)):
                when = f"+{other}"
            children.append(Child(name, when, self._options(there, f"{where}.{name}")))
        return children

    def _presence(self, there: Sequence[Sight], absent: Sequence[Setting], where: str) -> str | None:
        if not absent:
            return ""
        if all(weighs(sight.seen) for sight in there):
            return None
        condition = find_condition([sight.setting for sight in there], absent, self.varying)
        if condition is None:
            self.unresolved.append(f"{where}: there or not")
            return "" if len(there) > len(absent) else "!"
        return condition

    def _any_index(self, stem: str, sights: Sequence[Sight], where: str) -> Child:
        there = [
            Sight(
                child,
                sight.setting._replace(
                    place=sight.setting.place.inner(int(name[len(stem) :]), len(sight.seen.children))
                ),
            )
            for sight in sights
            for name, child in sight.seen.children
        ]
        weightless = not all(weighs(sight.seen) for sight in there)
        count = None if stem else self._count(sights, where, weightless)
        return Child(f"{stem}*", count, self._options(there, where))

    def _count(self, sights: Sequence[Sight], where: str, weightless: bool) -> str | None:
        """How many: "n:" and a number or a field that holds it; None where weights tell."""
        counts = [len(sight.seen.children) for sight in sights]
        if len(set(counts)) == 1:
            described = [path for path, items in sights[0].setting.lists.items() if items and items[0][:1] == "{"]
            described += sorted(sights[0].setting.lists) if counts[0] > _CHANCE else []
            same = [p for p in described if all(len(s.setting.lists.get(p, ())) == counts[0] for s in sights)]
            return f"n:{same[0] if same and weightless else counts[0]}"
        paths = sorted(self.varying, key=lambda path: (path.count("."), len(path)))
        for offset, path in itertools.product(("", "-1", "+1"), paths):
            values = [sight.setting.fields.get(path, "") for sight in sights]
            if all(v.isdigit() and int(v) + int(offset or 0) == c for v, c in zip(values, counts, strict=True)):
                return f"n:{path}{offset}"
        for path in sorted({path for sight in sights for path in sight.setting.lists}):
            if [len(sight.setting.lists.get(path, ())) for sight in sights] == counts:
                return f"n:{path}"
        if weightless:
            self.unresolved.append(f"{where}: how many")
        return None

    def _options(self, sights: Sequence[Sight], where: str) -> tuple[tuple[str, Structure], ...]:
        groups: dict[tuple[str, str, bool], list[Sight]] = {}
        for sight in sights:
            groups.setdefault((sight.seen.cls, sight.seen.kind, sight.seen.groups > 1), []).append(sight)
        if len(groups) > 1 and (path := self._activation_field(sights)):
            return (("", Structure(ACTIVATION + path, "other")),)
        if len(groups) == 1 and (by_content := self._by_content(sights, where)):
            return by_content
        options = []
        for condition, group in self._told_apart(list(groups.values())):
            if condition is None:
                self.unresolved.append(f"{where}: {group[0].seen.cls} or another")
            options.append(("!" if condition is None else condition, self.merge(group, where)))
        return tuple(options)

    def _told_apart(self, groups: Sequence[list[Sight]]) -> list[tuple[str | None, list[Sight]]]:
        """The condition under which each group is seen, the most frequent first."""
        ordered = sorted(groups, key=len, reverse=True)
        found = []
        for group in ordered:
            others = [sight.setting for other in ordered if other is not group for sight in other]
            found.append((find_condition([sight.setting for sight in group], others, self.varying), group))
        return found

    def _by_content(self, sights: Sequence[Sight], where: str) -> tuple[tuple[str, Structure], ...]:
        """A list that holds now this, now that, each under a condition of its own; () where it is not such a list."""
        forms: dict[tuple[str, ...], list[Sight]] = {}
        for sight in sights:
            forms.setdefault(tuple(child.cls for _, child in sight.seen.children), []).append(sight)
        mixed = len({cls for form in forms for cls in form}) > 1 and len({len(form) for form in forms}) > 1
        numbered = all(name.isdigit() for sight in sights for name, _ in sight.seen.children)
        is_list = numbered and sights[0].seen.cls in ("ModuleList", "Sequential")
        if not (mixed and is_list and len(forms) <= _MOST_FORMS):
            return ()
        told = self._told_apart(list(forms.values()))
        if any(condition is None for condition, _ in told):
            return ()
        return tuple((condition, self.merge(group, where)) for condition, group in told)

    def _activation_field(self, sights: Sequence[Sight]) -> str | None:
        """The field that names this activation, where all of them are as transformers' ACT2FN has them."""
        if any(sight.seen.parameters or sight.seen.children for sight in sights):
            return None
        for path in sorted(self.varying, key=lambda path: (path.count("."), len(path))):
            if all(self.activations.get(sight.setting.fields.get(path, "")) == sight.seen.cls for sight in sights):
                return path
        return None

    def _groups(self, sights: Sequence[Sight]) -> str:
        seen = [(sight.seen.groups, _outputs(sight.seen)) for sight in sights]
        if all(groups == 1 for groups, _ in seen):
            return ""
        if all(groups == out for groups, out in seen):
            return "out"
        if len({groups for groups, _ in seen}) == 1 and not self._field_of([g for g, _ in seen], sights, "group"):
            return str(seen[0][0])
        return self._field_of([groups for groups, _ in seen], sights, "") or "out"

    def _field_of(self, numbers: Sequence[int], sights: Sequence[Sight], part: str) -> str | None:
        paths = sights[0].setting.fields
        for path in sorted(paths, key=lambda path: ("group" not in path, path.count("."), len(path))):
            if (
                part in path
                and "label" not in path
                and all(
                    sight.setting.fields.get(path) == str(number) for number, sight in zip(numbers, sights, strict=True)
                )
            ):
                return path
        return None


def _outputs(seen: Seen) -> int:
    """A convolution's output channels; 0 where it has no weight of its own."""
    return next(
        (tensor.shape[0] for tensor in seen.parameters if tensor.name in ("weight", "bias") and tensor.shape), 0
    )


def _numbered(sights: Sequence[Sight]) -> str:
    """The common part of names like "stage2", where a dictionary of modules has only such; "" else."""
    names = [name for sight in sights for name, _ in sight.seen.children]
    stems = {name.rstrip("0123456789") for name in names}
    alike = (
        len(stems) == 1
        and all(sight.seen.cls == "ModuleDict" for sight in sights)
        and all(n[-1].isdigit() for n in names)
    )
    return stems.pop() if alike else ""


def _only(stem: str, sights: Sequence[Sight]) -> list[Sight]:
    """The sights with no other children than those of this stem."""

    def kept(seen: Seen) -> Seen:
        return seen._replace(children=tuple(pair for pair in seen.children if stem_of(pair[0]) == stem))

    return [sight._replace(seen=kept(sight.seen)) for sight in sights]


def _companion(name: str, sights: Sequence[Sight]) -> str | None:
    """A sibling with weights that is there exactly when this one is."""
    here = [_has(sight, name) for sight in sights]
    for other in dict.fromkeys(child for sight in sights for child, _ in sight.seen.children):
        weighty = all(weighs(child) for sight in sights for key, child in sight.seen.children if key == other)
        if other != name and weighty and [_has(sight, other) for sight in sights] == here:
            return other
    return None


def _has(sight: Sight, name: str) -> bool:
    return any(child == name for child, _ in sight.seen.children)


def _is_list(sights: Sequence[Sight]) -> bool:
    """Whether children are indices that behave alike: a list whose length varies, or a list of one class."""
    names = [tuple(name for name, _ in sight.seen.children) for sight in sights]
    if not any(names) or not all(name.isdigit() for children in names for name in children):
        return False
    if len({len(children) for children in names}) > 1 or any(sight.seen.cls == "ModuleList" for sight in sights):
        return True
    return len({child.cls for sight in sights for _, child in sight.seen.children}) == 1


def in_order(lists: Sequence[Sequence[str]]) -> list[str]:
    """All names, each after what it came after."""
    order: list[str] = []
    for names in sorted(lists, key=len, reverse=True):
        at = 0
        for name in names:
            if name in order:
                at = order.index(name) + 1
            else:
                order.insert(at, name)
                at += 1
    return order


def _slots(tensors: Sequence[tuple[SeenTensor, ...]]) -> tuple[Slot, ...]:
    names = in_order([[tensor.name for tensor in group] for group in tensors])
    slots = []
    for name in names:
        same = [tensor for group in tensors for tensor in group if tensor.name == name]
        dimensions = {len(tensor.shape) for tensor in same}
        dtypes = {tensor.dtype for tensor in same}
        slots.append(
            Slot(
                name,
                dimensions.pop() if len(dimensions) == 1 else None,
                len(same) == len(tensors),
                all(tensor.persistent for tensor in same),
                dtypes.pop() if len(dtypes) == 1 else None,
            )
        )
    return tuple(slots)
