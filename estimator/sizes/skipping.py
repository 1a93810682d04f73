"""Which modules a quantiser of transformers (5.23.0) leaves as they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from estimator.architecture.module import ModuleTree
from estimator.errors import UsageError


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
    tree: ModuleTree, named: Sequence[str] | None, *, add_default: bool = False, where: str = "quantization_config"
) -> Callable[[str], bool]:
    """Whether a module's name is one that the quantiser leaves alone, as a function of it.

    named: the user's or the config's list in place of the default one (`HfQuantizer.get_modules_to_not_convert`);
    modules kept in float32 come on top. A pattern counts from the start of the name up to a dot, as a regular
    expression, or as a suffix (`should_convert_module`, quantizers/quantizers_utils.py).
    Raises UsageError where a pattern is no regular expression.
    """
    patterns = [*(named or ()), *tree.keep_in_fp32]
    if named is None or add_default:
        patterns += default_skips(tree)
    try:
        starts = [re.compile(rf"(?:{pattern})(?:(?<=\.)|(?=\.|$))") for pattern in patterns]
    except re.error as error:
        raise UsageError(
            f"{error.pattern!r} is no regular expression ({error.msg}), and transformers reads it as one.",
            where=where,
            way_out="escape what is meant literally",
        ) from error
    suffixes = tuple(patterns)
    return lambda name: name.endswith(suffixes) or any(start.match(name) for start in starts)
