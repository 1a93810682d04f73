"""Which modules a config targets.

peft 0.21.2: check_target_module_exists, _maybe_include_all_linear_layers, _find_minimal_target_modules
(peft/tuners/tuners_utils.py), get_pattern_key, match_target_against_key (peft/utils/other.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeGuard

from estimator.errors import InvalidLoraError, UnsupportedError
from estimator.lora.index import TreeIndex, suffixes_of
from estimator.request.lora_config import LoraConfig
from estimator.request.patterns import Pattern, compiled, fullmatching, is_plain, matching

INCLUDE_LINEAR_LAYERS_SHORTHAND = "all-linear"
DUMMY_TARGET_MODULES = "dummy-target-modules"
EMBEDDING_LAYER_NAMES = ("embed_tokens", "lm_head")
SEQ_CLS_HEAD_NAMES = ("score", "classifier")
MIN_TARGET_MODULES_FOR_OPTIMIZATION = 20


class Matched(NamedTuple):
    """What inject_adapter sorts the model's modules into, in the order of named_modules()."""

    targeted: tuple[str, ...]
    excluded: frozenset[str]
    unmatched: bool  # whether any module was neither


def match_modules(index: TreeIndex, config: LoraConfig) -> Matched:
    """The modules that get an adapter. `target_modules` must have been prepared (no None, no all-linear)."""
    key = ("match", *(_key(getattr(config, name)) for name in _DECIDING))
    return index.remembered(key, lambda: _match_modules(index, config))


_DECIDING = ("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern")


def _key(value: Any) -> Any:
    return frozenset(value) if isinstance(value, (list, tuple, set)) else value


def _match_modules(index: TreeIndex, config: LoraConfig) -> Matched:
    excluded = excluded_modules(index, config)
    found = modules_named(index, config) - excluded
    return Matched(
        targeted=tuple(index.in_order(found)),
        excluded=frozenset(excluded),
        unmatched=len(found) + len(excluded) < len(index.modules),
    )


def modules_named(index: TreeIndex, config: LoraConfig) -> set[str]:
    """check_target_module_exists, exclusions apart."""
    targets = config.target_modules
    if targets is None or targets == DUMMY_TARGET_MODULES:
        return set()
    if isinstance(targets, str):
        return set(fullmatching(targets, tuple(index.modules), where="target_modules"))
    wanted = set(targets)
    by_suffix = set().union(*index.with_suffixes(wanted).values())
    layers = config.layers_to_transform
    if not _uses_layers(layers):
        return by_suffix
    exact = by_suffix & wanted  # a name given in full is taken whatever its layer
    return exact | _in_layers(by_suffix - exact, layers, config.layers_pattern)


def excluded_modules(index: TreeIndex, config: LoraConfig) -> set[str]:
    """What exclude_modules names, and all that modules_to_save names or that lies below it."""
    excluded: set[str] = set()
    if isinstance(config.exclude_modules, str) and config.exclude_modules:
        excluded.update(fullmatching(config.exclude_modules, tuple(index.modules), where="exclude_modules"))
    elif config.exclude_modules:
        excluded.update(*index.with_suffixes(config.exclude_modules).values())
    return excluded.union(*names_with_parts(index, config.modules_to_save or ()))


def excluded_among(names: Sequence[str], config: LoraConfig) -> set[str]:
    """The same of names that need not be modules': of parameters, and of what a module was once called."""
    excluded: set[str] = set()
    if isinstance(config.exclude_modules, str) and config.exclude_modules:
        excluded.update(fullmatching(config.exclude_modules, names, where="exclude_modules"))
    elif config.exclude_modules:
        suffixes = set(config.exclude_modules)
        excluded.update(name for name in names if not suffixes.isdisjoint(suffixes_of(name)))
    plain = {part for part in config.modules_to_save or () if is_plain(part)}
    excluded.update(name for name in names if not plain.isdisjoint(name.split(".")))
    patterns = [part_pattern(part) for part in dict.fromkeys(config.modules_to_save or ()) if not is_plain(part)]
    if patterns:
        excluded.update(*matching(patterns, names, where="modules_to_save"))
    return excluded


def is_embedding_layer(name: str) -> bool:
    """Whether a module is called as PEFT's EMBEDDING_LAYER_NAMES has it, wherever it lies."""
    return name.rpartition(".")[2] in EMBEDDING_LAYER_NAMES


def part_pattern(part: str) -> Pattern:
    """What has it among its dotted parts: PEFT's own pattern for names in modules_to_save."""
    return Pattern(rf"(^|.*\.){part}($|\..*)", part)


def names_with_parts(index: TreeIndex, parts: Sequence[str]) -> list[list[str]]:
    """For each part the names that have it among their parts: PEFT's `(^|.*\\.)part($|\\..*)`."""
    distinct = list(dict.fromkeys(parts))
    patterns = [part_pattern(part) for part in distinct if not is_plain(part)]
    found = matching(patterns, tuple(index.modules), where="modules_to_save") if patterns else []
    return [*(index.with_part(part) for part in distinct if is_plain(part)), *found]


# layers_to_transform


def _uses_layers(layers: int | Sequence[int] | None) -> TypeGuard[int | Sequence[int]]:
    return layers is not None and (isinstance(layers, int) or len(layers) != 0)


def _in_layers(names: Iterable[str], layers: int | Sequence[int], pattern: Sequence[str] | str | None) -> set[str]:
    wanted = {layers} if isinstance(layers, int) else set(layers)
    if pattern is None or len(pattern) == 0:
        return {name for name in names if first_layer_number(name) in wanted}
    return {name for name, layer in _numbers_behind(sorted(names), pattern) if layer in wanted}


def layer_numbers(names: Iterable[str], pattern: Sequence[str] | str | None) -> set[int]:
    """The numbers of layers that layers_to_transform can name, in these modules."""
    if pattern is None or len(pattern) == 0:
        return {number for name in names if (number := first_layer_number(name)) is not None}
    return {number for _, number in _numbers_behind(sorted(names), pattern) if number is not None}


def first_layer_number(name: str) -> int | None:
    """The first number with two parts or more before it and one behind: `.*?\\.[^.]*\\.(?P<idx>\\d+)\\.`."""
    parts = name.split(".")
    return next((int(part) for part in parts[2:-1] if part.isdecimal()), None)


def _numbers_behind(names: list[str], pattern: Sequence[str] | str) -> Iterable[tuple[str, int | None]]:
    """Each name with the number behind the first pattern that it matches: `(?:^|.*?\\.)pattern\\.(?P<idx>\\d+)\\.`.

    None where a pattern such as `layers|h` matches by the half that the number does not stand behind.
    """
    given = list(dict.fromkeys([pattern] if isinstance(pattern, str) else pattern))
    patterns = [Pattern(rf"(?:^|.*?\.){one}\.(?P<idx>\d+)\.", one) for one in given]
    numbered: dict[str, int | None] = {}
    for one, taken in zip(patterns, matching(patterns, names, where="layers_pattern"), strict=True):
        expression = compiled(one.whole, where="layers_pattern", said=one.said)
        for name in taken:
            if name not in numbered and (match := expression.match(name)):
                numbered[name] = None if match["idx"] is None else int(match["idx"])
    return numbered.items()


# all-linear and long lists


def all_linear_modules(index: TreeIndex, task_type: str | None) -> set[str]:
    """Every Linear and Conv1D but the output head; a classifier's head where there is no output embedding."""
    return index.remembered(("all-linear", task_type), lambda: _all_linear_modules(index, task_type))


def _all_linear_modules(index: TreeIndex, task_type: str | None) -> set[str]:
    tree = index.tree
    linear = {
        name
        for name, module in index.modules.items()
        if module.kind in ("Linear", "Conv1D") and (name not in tree.quantised or tree.quantised[name].is_linear)
    }
    if tree.output_embedding is not None:
        linear.discard(tree.output_embedding)
    elif task_type == "SEQ_CLS":
        head = next((name for name in SEQ_CLS_HEAD_NAMES if name in index.modules), None)
        linear.discard(head)
    return linear


def minimal_targets(index: TreeIndex, targets: Iterable[str]) -> set[str]:
    """A list of 20 names and more becomes the fewest suffixes that tell its modules from the others.

    peft 0.21.2, inject_adapter and _find_minimal_target_modules; it shows in the saved config, in which embeddings
    count as targeted, and in that names given in full are names no more. Raises InvalidLoraError for an empty name.
    """
    given = set(targets)
    if len(given) < MIN_TARGET_MODULES_FOR_OPTIMIZATION:
        return given
    if "" in given:
        raise InvalidLoraError(
            "target_modules holds an empty name among 20 or more.", where="target_modules", way_out="leave it out"
        )
    fewest = index.remembered(("minimal", frozenset(given)), lambda: _find_minimal(index, given))
    return fewest if len(fewest) < len(given) else given


def _find_minimal(index: TreeIndex, targets: set[str]) -> set[str]:
    """What ends in one name has no suffix in common with what ends in another: each is a question of its own."""
    by_last_part: dict[str, set[str]] = {}
    for target in targets:
        by_last_part.setdefault(target.rpartition(".")[2], set()).add(target)
    required: set[str] = set()
    for last, group in by_last_part.items():
        names = index.by_last_part.get(last, ())
        required |= {last} if group.issuperset(names) else _find_minimal_among(index, names, group)
    return required or targets


def _find_minimal_among(index: TreeIndex, names: Iterable[str], targets: set[str]) -> set[str]:
    """The fewest suffixes of targets that tell them from the other `names`, all of which end in one name."""
    hit = set().union(*index.with_suffixes(targets).values())
    others = {suffix for name in names if name not in hit for suffix in suffixes_of(name)}
    required: set[str] = set()
    for suffixes in sorted(map(suffixes_of, targets)):
        if required.isdisjoint(suffixes[:-1]):
            free = (suffix for suffix in suffixes if suffix not in required and suffix not in others)
            required.update(islice(free, 1))
    return required


# rank_pattern


def ranks(names: Sequence[str], config: LoraConfig) -> dict[str, int]:
    """The rank of each name: the first key of rank_pattern that its end matches, else r."""
    pattern = config.rank_pattern
    if not pattern:
        return dict.fromkeys(names, config.r)
    return _by_pattern(names, pattern, config.r, "rank_pattern")


def alphas(names: Sequence[str], config: LoraConfig) -> dict[str, Any]:
    """The alpha of each name: the first key of alpha_pattern that its end matches, else lora_alpha."""
    return _by_pattern(names, config.alpha_pattern or {}, config.lora_alpha, "alpha_pattern")


def _by_pattern(names: Sequence[str], pattern: Mapping[str, Any], usual: Any, where: str) -> dict[str, Any]:
    keys = pattern_keys(names, pattern, where)
    return {name: pattern[keys[name]] if name in keys else pattern.get(name, usual) for name in names}


def pattern_keys(names: Sequence[str], pattern: Mapping[str, Any], where: str) -> dict[str, str]:
    """get_pattern_key: for each name the first key, in the mapping's order, that `(.*\\.)?(key)$` takes."""
    places = {key: place for place, key in enumerate(pattern)}
    keys = {name: end for name in names if (end := name.rpartition(".")[2]) in pattern and is_plain(end)}
    for key, taken in _taken_by([key for key in pattern if not is_plain(key)], names, where):
        for name in taken:
            if name not in keys or places[key] < places[keys[name]]:
                keys[name] = key
    return keys


def unmatched_keys(names: Sequence[str], pattern: Mapping[str, Any], where: str) -> list[str]:
    """Keys that take none of the names, which PEFT warns of. Raises InvalidLoraError for a faulty one, as `re` does."""
    if not names or not pattern:
        return list(pattern)
    last_parts = {name.rpartition(".")[2] for name in names}
    taken = dict(_taken_by([key for key in pattern if not is_plain(key)], names, where))
    return [key for key in pattern if not taken.get(key, key in last_parts)]


def check_keys(keys: Iterable[str], where: str) -> None:
    """Raises InvalidLoraError for a key that `re` would refuse, UnsupportedError where there are too many to tell."""
    keys = [key for key in keys if not is_plain(key)]
    if len(keys) > MAX_KEYS:
        what = f"{where} holds {len(keys):,} keys; no more than {MAX_KEYS:,} are read."
        raise UnsupportedError(what, where=where, way_out="name fewer modules")
    for key in keys:
        compiled(_key_pattern(key).whole, where=where, said=key)


MAX_KEYS = 20_000


def _key_pattern(key: str) -> Pattern:
    return Pattern(rf"(.*\.)?({key})$", key)


def _taken_by(keys: Sequence[str], names: Sequence[str], where: str) -> Iterable[tuple[str, list[str]]]:
    patterns = list(map(_key_pattern, keys))
    return zip(keys, matching(patterns, names, where=where), strict=True) if keys else ()
