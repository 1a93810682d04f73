"""Children told apart by number alone, of which a config has now more, now fewer: expert_0, expert_1, ..."""

from __future__ import annotations

from collections.abc import Sequence

from estimator.architecture.surveying.observe import Seen, structure_of


def weighs(seen: Seen) -> bool:
    """Whether a checkpoint holds anything of this module."""
    return (
        bool(seen.parameters or seen.is_open)
        or any(b.persistent for b in seen.buffers)
        or any(weighs(c) for _, c in seen.children)
    )


def stem_of(name: str) -> str:
    return name.rstrip("0123456789")


def counted(sights: Sequence[Seen]) -> dict[str, str]:
    """Stem -> the first name, of children that are told apart by number alone and are now more, now fewer: the
    expert_0, expert_1, ... of a model.
    """
    found: dict[str, list[list[tuple[str, Seen]]]] = {}
    for sight in sights:
        alike: dict[str, list[tuple[str, Seen]]] = {}
        for name, child in sight.children:
            if stem_of(name) not in ("", name):
                alike.setdefault(stem_of(name), []).append((name, child))
        for stem, children in alike.items():
            found.setdefault(stem, []).append(children)
    return {stem: lists[0][0][0] for stem, lists in found.items() if _grows(stem, lists)}


def _grows(stem: str, lists: Sequence[Sequence[tuple[str, Seen]]]) -> bool:
    """Whether lists begin at one number and differ in length, each of children with weights that are alike."""
    numbers = [[int(name[len(stem) :]) for name, _ in children] for children in lists]
    in_turn = all(each == list(range(numbers[0][0], numbers[0][0] + len(each))) for each in numbers)
    alike = all(len({structure_of(child) for _, child in each}) == 1 and weighs(each[0][1]) for each in lists)
    one_class = len({each[0][1].cls for each in lists}) == 1
    return in_turn and alike and one_class and len({len(each) for each in numbers}) > 1
