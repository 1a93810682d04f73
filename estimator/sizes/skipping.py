"""Which modules a quantiser of transformers (5.23.0) leaves as they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from estimator.architecture.module import ModuleTree
from estimator.errors import MalformedConfigError, UsageError
from estimator.request.patterns import Pattern, matching

OPTION, CONFIG = "--skip-modules", "quantization_config in config.json"
_MOST_PATTERNS = 20_000  # plain names apart
_DOTTED = re.compile(r"[\w.]+")


def default_skips(tree: ModuleTree) -> tuple[str, ...]:
    """What stays unconverted where nobody says: tied weights, the last parameter, the output embedding.

    `get_keys_to_not_convert`, quantizers/base.py. Only `.weight` is cut off, so a last parameter that is a bias
    protects nothing: the classifiers of BERT and ViT are converted.
    """
    names = {*tree.tied, *tree.tied.values()}
    last = next((m for m in reversed(tree.modules) if m.parameters), None)
    if last is not None:
        names.add(f"{last.name}.{last.parameters[-1].name}".removeprefix("."))
    if tree.output_embedding is not None:
        names.add(tree.output_embedding)
    return tuple(sorted(name.removesuffix(".weight") for name in names))


def skips(
    tree: ModuleTree, named: Sequence[str] | None, *, add_default: bool = False, where: str = CONFIG
) -> Callable[[str], bool]:
    """Whether a module's name is one that the quantiser leaves alone, as a function of it.

    named: the user's or the config's list in place of the default one (`HfQuantizer.get_modules_to_not_convert`);
    modules kept in float32 come on top.
    Raises UsageError where a pattern of an option is no regular expression or an endless one, MalformedConfigError
    where it is the config's.
    """
    patterns = [*(named or ()), *tree.keep_in_fp32]
    if named is None or add_default:
        patterns += default_skips(tree)
    return frozenset().union(*skipped_by(tree, patterns, where=where).values()).__contains__


def skipped_by(tree: ModuleTree, patterns: Sequence[str], *, where: str = CONFIG) -> dict[str, set[str]]:
    """For each pattern the names of the modules that it spares; errors as of `skips`.

    A pattern counts from the start of the name up to a dot, as a regular expression, or as a suffix
    (`should_convert_module`, quantizers/quantizers_utils.py).
    """
    names, said = _Names(module.name for module in tree.modules), list(dict.fromkeys(patterns))
    expressions = [pattern for pattern in said if not _DOTTED.fullmatch(pattern)]
    starts = matching(
        [Pattern(rf"(?:{pattern})(?:(?<=\.)|(?=\.|$))", pattern) for pattern in expressions],
        names.all,
        where=where,
        refusal=UsageError if where == OPTION else MalformedConfigError,
        most=_MOST_PATTERNS,
    )
    begun = dict(zip(expressions, starts, strict=True))
    return {
        pattern: {*(begun[pattern] if pattern in begun else names.begun_by(pattern)), *names.ending_in(pattern)}
        for pattern in said
    }


class _Names:
    """Names of modules, looked up by names: a config may name every layer of a model, which `re` takes minutes for."""

    def __init__(self, names: Iterable[str]) -> None:
        self.all = tuple(names)
        self._begun: dict[tuple[int, ...], dict[tuple[str, ...], list[str]]] = {}  # by the lengths of a name's words
        self._ending: dict[int, dict[str, list[str]]] = {}  # by the length of the end

    def begun_by(self, dotted: str) -> Sequence[str]:
        """What `re.match` takes up to a dot or the end, each dot in `dotted` standing for any letter."""
        words = dotted.split(".")
        lengths = tuple(map(len, words))
        if lengths not in self._begun:
            self._begun[lengths] = self._by_words(lengths)
        return self._begun[lengths].get(tuple(words), ())

    def _by_words(self, lengths: Sequence[int]) -> dict[tuple[str, ...], list[str]]:
        """The names by the letters at which words of these lengths would stand, a letter between each two."""
        ends = [end - 1 for end in accumulate(length + 1 for length in lengths)]
        places = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
        found: dict[tuple[str, ...], list[str]] = {}
        for name in self.all:
            if len(name) >= ends[-1] and (name[ends[-1] :][:1] in ("", ".") or name[ends[-1] - 1] == "."):
                found.setdefault(tuple(name[place] for place in places), []).append(name)
        return found

    def ending_in(self, end: str) -> Sequence[str]:
        if len(end) not in self._ending:
            table = self._ending[len(end)] = {}
            for name in self.all:
                table.setdefault(name[-len(end) :] if end else "", []).append(name)
        return self._ending[len(end)].get(end, ())
