"""Which modules a quantiser of transformers (5.23.0) leaves as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from estimator.architecture.module import ModuleTree
from estimator.errors import MalformedConfigError, UsageError
from estimator.request.patterns import Pattern, matching

OPTION, CONFIG = "--skip-modules", "quantization_config in config.json"
_MOST_PATTERNS = 20_000  # a config may name every layer


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
    names = tuple(module.name for module in tree.modules)
    said = list(dict.fromkeys(patterns))
    starts = matching(
        [Pattern(rf"(?:{pattern})(?:(?<=\.)|(?=\.|$))", pattern) for pattern in said],
        names,
        where=where,
        refusal=UsageError if where == OPTION else MalformedConfigError,
        most=_MOST_PATTERNS,
    )
    return {
        pattern: {*found, *(name for name in names if name.endswith(pattern))}
        for pattern, found in zip(said, starts, strict=True)
    }
