"""Whether the files are what their headers, their index and config.json say."""

import re
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any, NamedTuple

from estimator.architecture.module import ModuleTree
from estimator.checkpoint.checkpoint import CheckedFile, Checkpoint, stacks_of
from estimator.checkpoint.quantization import quantization_of
from estimator.sizes.base import parameters_of

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks?)\.(\d+)\.")
_NUMBERED = re.compile(r"\.\d+\.")
_MOST = 8
_SIDE_TOWERS = ("vision", "visual", "audio", "encoder", "decoder", "mtp", "talker", "speech")


class CrossCheck(NamedTuple):
    """Whether files, headers, index and config.json say the same."""

    status: str  # "match" | "mismatch" | "unavailable": nothing to compare with
    files: tuple[CheckedFile, ...] = ()
    complaints: tuple[str, ...] = ()  # index and config.json against the headers, in words; sizes are in `files`
    dtypes: Mapping[str, int] | None = None  # of all files together: dtype -> number of tensors


def cross_check(
    checkpoint: Checkpoint | None, config: Mapping[str, Any], tree: ModuleTree, by_config: ModuleTree | None = None
) -> CrossCheck:
    """Headers against real sizes, index against headers, config.json against shapes.

    `by_config` is the tree that config.json alone gives, where its class has formulas: the two have to agree.
    """
    if checkpoint is None or not checkpoint.files:
        return CrossCheck(status="unavailable")
    shapes = _shapes(checkpoint, config, tree) if by_config is None else _against(_upright(tree, config), by_config)
    complaints = (*checkpoint.complaints, *_total_parameters(checkpoint, config, tree), *shapes, *_lacking(tree))
    compared = [f for f in checkpoint.files if f.expected_bytes is not None and f.actual_bytes is not None]
    differs = complaints or any(file.expected_bytes != file.actual_bytes for file in compared)
    agrees = "match" if compared or checkpoint.index_total_size is not None else "unavailable"
    return CrossCheck(
        status="mismatch" if differs else agrees,
        files=checkpoint.files,
        complaints=complaints,
        dtypes=_dtype_mix(checkpoint),
    )


def _total_parameters(checkpoint: Checkpoint, config: Mapping[str, Any], tree: ModuleTree) -> Iterator[str]:
    """The index's number is the class's own, with tied parameters once or each time, or that of all tensors; what is
    packed is counted otherwise.
    """
    claimed, own = checkpoint.index_total_parameters, tree.architecture in (config.get("architectures") or ())
    if claimed is None or not own or tree.basis != "exact" or quantization_of(config) is not None:
        return
    stored = sum(prod(stack.kind.shape) * len(stack.indices) for stack in stacks_of(checkpoint.tensors))
    held, untied = parameters_of(tree), parameters_of(tree._replace(tied={}))
    if claimed not in (held, untied, stored):
        yield f"the index claims {claimed:,} parameters; {tree.architecture} has {held:,}, the headers {stored:,}"


def _lacking(tree: ModuleTree) -> Iterator[str]:
    """Weights of numbered layers that config.json promises and no file holds.

    What stands beside the layers may well be missing, as it is in many whose weights are all there: a pooler, wav2vec
    2.0's masked_spec_embed, positions that a class works out and leaves out as it saves (Marian's).
    """
    lost = [name for name in tree.lacking if _NUMBERED.search(name)]
    if lost:
        others = f" and {len(lost) - 1:,} more" if len(lost) > 1 else ""
        yield f"The files do not hold {lost[0]}{others}, which config.json promises."


def _upright(tree: ModuleTree, config: Mapping[str, Any]) -> ModuleTree:
    """The tree with matrices of Conv1D as the class keeps them, which quantisers store the other way round."""
    if quantization_of(config) is None:
        return tree
    from estimator.sizes.quantized import upright

    return tree._replace(modules=tuple(map(upright, tree.modules)))


def _against(tree: ModuleTree, by_config: ModuleTree) -> Iterator[str]:
    """What the headers hold and config.json does not promise, or the other way round."""
    from estimator.architecture.difference import compare

    found = compare(tree, by_config)
    yield from (difference.message for difference in found[:_MOST])
    if len(found) > _MOST:
        yield f"{len(found) - _MOST:,} more parameters differ from what config.json promises."


def _shapes(checkpoint: Checkpoint, config: Mapping[str, Any], tree: ModuleTree) -> Iterator[str]:
    """Vocabulary, width and number of layers; silent where config.json says them in a way of its own."""
    text = config.get("text_config")
    section = text if isinstance(text, Mapping) else config
    yield from _embedding(checkpoint, section, tree)
    yield from _layers(checkpoint, section)


def _embedding(checkpoint: Checkpoint, config: Mapping[str, Any], tree: ModuleTree) -> Iterator[str]:
    """A number that config.json holds nowhere can't be what the class builds."""
    name = (tree.input_embedding or "").rpartition(".")[2]
    ending = f"{name}.weight"
    named = [t for full, t in checkpoint.tensors.items() if full.endswith(ending)] if name else []
    stored = [t for t in named if len(t.shape) == 2]
    known = {value for value in config.values() if type(value) is int}
    padded = any("pad_vocab" in key or "vocab_size_multiple" in key for key in config)
    if len(stored) != 1 or stored[0].dtype not in ("F32", "F16", "BF16"):
        return
    rows, width = stored[0].shape
    for field, size in (("vocab_size", rows), ("hidden_size", width)):
        if type(config.get(field)) is int and size not in known and not (padded and field == "vocab_size"):
            yield f"{stored[0].name} is {rows:,} x {width:,}, but config.json says {field} {config[field]:,}"


def _layers(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Iterator[str]:
    """Fewer layers than config.json says; more are common (extra heads for several tokens) and loaded by nobody."""
    promised = config.get("num_hidden_layers")
    if type(promised) is not int:
        return
    last = f".{promised - 1}."
    if promised - 1 in _indices(name for name in checkpoint.tensors if last in name):
        return
    found = _indices(checkpoint.tensors)
    if found and len(found) < promised and max(found) + 1 < promised:
        yield f"the files hold {max(found) + 1} layers, but config.json says num_hidden_layers {promised}"


def _indices(names: Iterable[str]) -> set[int]:
    """The layers of the text model that the names speak of."""
    matches = (_LAYER.search(name) for name in names if not any(tower in name for tower in _SIDE_TOWERS))
    return {int(match.group(1)) for match in matches if match}


def _dtype_mix(checkpoint: Checkpoint) -> Mapping[str, int]:
    mix: dict[str, int] = {}
    for file in checkpoint.files:
        for dtype, count in file.dtypes.items():
            mix[dtype] = mix.get(dtype, 0) + count
    return mix
