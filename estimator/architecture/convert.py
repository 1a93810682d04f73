"""Shapes through transformers' conversion operations: experts merged, projections joined or split.

Rules' source: transformers 5.23.0, core_model_loading.py, the `convert` of each ConversionOps.
Values do not matter here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from estimator.architecture.rename import Transform
from estimator.errors import MalformedHeaderError

Shape = tuple[int, ...]
Shapes = dict[str, list[Shape]]  # by source or target pattern


def converted(
    transform: Transform, name: str, collected: Shapes, config: Callable[[str], Any]
) -> dict[str, Shape] | None:
    """Full parameter name -> shape, from the shapes that a converter gathered; None where shapes alone can't tell.

    Raises MalformedHeaderError for shapes that the converter can't take.
    """
    shapes = collected
    for operation, arguments in transform.operations:
        try:
            made = _OPERATIONS.get(operation, _unknown)(shapes, transform, {**arguments, "config": config})
        except (IndexError, ValueError) as error:
            stored = ", ".join(str(list(found[0][:8])) for found in collected.values())
            raise MalformedHeaderError(
                f"{name} is stored with shapes of which transformers' {operation} cannot make it: {stored[:200]}.",
                where=name,
                way_out="check that config.json belongs to these weights",
            ) from error
        if made is None:
            return None
        shapes = made
    full = name.replace("*.", "0.")
    inside = next((key for key in shapes if key in full), None)
    if inside is None:
        return {key: found[0] for key, found in shapes.items()}
    before, _, after = full.partition(inside)
    return {before + key + after: found[0] for key, found in shapes.items()}


def _only(shapes: Shapes) -> Shape:
    return next(iter(shapes.values()))[0]


def _merge(shapes: Shapes, transform: Transform, arguments: Mapping[str, Any]) -> Shapes:
    dim = arguments["dim"]
    merged = {}
    for source, found in shapes.items():
        if len(set(found)) > 1:
            raise ValueError("stacked tensors are of one shape")
        target = transform.targets[0] if len(shapes) == 1 else source
        merged[target] = [(*found[0][:dim], len(found), *found[0][dim:])]
    return merged


def _concatenate(shapes: Shapes, transform: Transform, arguments: Mapping[str, Any]) -> Shapes:
    parts = [shape for found in shapes.values() for shape in found]
    dim = range(len(parts[0]))[arguments["dim"]]
    if len({(*shape[:dim], *shape[dim + 1 :]) for shape in parts}) > 1:
        raise ValueError("tensors are joined along one dimension")
    total = sum(shape[dim] for shape in parts)
    return {transform.targets[0]: [(*parts[0][:dim], total, *parts[0][dim + 1 :])]}


def _chunk(shapes: Shapes, transform: Transform, arguments: Mapping[str, Any]) -> Shapes | None:
    targets, shape = list(transform.targets), _only(shapes)
    if attribute := arguments.get("num_shards_attribute"):
        count = arguments["config"](attribute)
        if not isinstance(count, int):
            return None
        targets = [targets[0].replace("*", str(index)) for index in range(count)]
    dim = range(len(shape))[arguments["dim"]]
    size = math.ceil(shape[dim] / len(targets))
    sizes = [min(size, shape[dim] - at * size) for at in range(len(targets))]  # torch.chunk gives no empty ones
    return {t: [(*shape[:dim], size, *shape[dim + 1 :])] for t, size in zip(targets, sizes, strict=True) if size > 0}


def _split_list(shapes: Shapes, transform: Transform, arguments: Mapping[str, Any]) -> Shapes:
    dim, found = arguments["dim"], {}
    for source, (shape, *_) in shapes.items():
        pattern = transform.targets[0] if len(shapes) == 1 else source
        for index in range(shape[dim]):
            found[pattern.replace("*", str(index))] = [(*shape[:dim], *shape[dim + 1 :])]
    return found


def _transpose(shapes: Shapes, transform: Transform, arguments: Mapping[str, Any]) -> Shapes | None:
    shape = list(_only(shapes))
    one, other = arguments["dim0"], arguments["dim1"]
    target = transform.sources[0] if len(transform.targets) > 1 else transform.targets[0]
    swapped = [
        shape[other] if axis == one else shape[one] if axis == other else size for axis, size in enumerate(shape)
    ]
    if arguments.get("check_dims"):  # only where the model has it the other way round
        axis, field = arguments.get("expected") or (None, "")
        size = arguments["config"](field) if axis is not None else None
        fitting = [form for form in (shape, swapped) if axis is not None and form[axis] == size]
        return {target: [tuple(fitting[0])]} if fitting else None
    return {target: [tuple(swapped)]}


def _flatten(shapes: Shapes, transform: Transform, arguments: Mapping[str, Any]) -> Shapes:
    shape = _only(shapes)
    return {transform.targets[0]: [(shape[0], math.prod(shape[1:]))]}


def _unflatten(shapes: Shapes, transform: Transform, arguments: Mapping[str, Any]) -> Shapes:
    shape = _only(shapes)
    return {transform.targets[0]: [(shape[0], arguments["in_channels"], *arguments["kernel_size"])]}


def _same(shapes: Shapes, transform: Transform, arguments: Mapping[str, Any]) -> Shapes:
    if len(shapes) == 1 and len(transform.targets) == 1:
        return {transform.targets[0]: next(iter(shapes.values()))}
    return shapes


def _permuted(shapes: Shapes, transform: Transform, arguments: Mapping[str, Any]) -> Shapes:
    """Raises ValueError for rows of queries or keys that are not two halves of each head.

    All heads that are permuted are the vision section's where there is one (conversion_mapping.py names no other).
    """
    section = "vision_config." if arguments["config"]("vision_config") else ""
    heads = arguments["config"](f"{section}num_attention_heads")
    rows = [shape[0] for found in list(shapes.values())[:2] for shape in found if shape]  # the third are the values
    if type(heads) is int and heads > 0 and any(many % (2 * heads) for many in rows):
        raise ValueError("no halves")
    return _same(shapes, transform, arguments)


def _ernie(shapes: Shapes, transform: Transform, arguments: Mapping[str, Any]) -> Shapes:
    """Experts of text and of vision lie in one list: equal parts for each target, gate and up joined."""
    parts, dim, found = len(transform.targets), arguments["concat_dim"], {}
    for at, target in enumerate(transform.targets):
        stacks = []
        for shape_list in shapes.values():
            size = math.ceil(len(shape_list) / parts)
            part = shape_list[at * size : (at + 1) * size]
            stacks.append((len(part), *part[0]))
        first = stacks[0]
        found[target] = [(*first[:dim], sum(stack[dim] for stack in stacks), *first[dim + 1 :])]
    return found


def _unpadded(shapes: Shapes, transform: Transform, arguments: Mapping[str, Any]) -> Shapes | None:
    """The vocabulary without the rows that fill it up (transformers 5.24.0, Inkling2UnpadVocab)."""
    rows, *rest = _only(shapes)
    section = "text_config." if arguments["config"]("text_config") else ""
    real = arguments["config"](f"{section}unpadded_vocab_size")
    return {transform.targets[0]: [(min(rows, real), *rest)]} if type(real) is int else None


def _dequantized(shapes: Shapes, transform: Transform, arguments: Mapping[str, Any]) -> Shapes:
    """Two numbers a byte where the largest is stored beside the scales (5.24.0, Inkling2LoopDequantizeExperts)."""
    weight, _, largest, _ = transform.sources
    experts, rows, columns = shapes[weight][0]
    return {transform.targets[0]: [(experts, rows, columns * 2 if largest in shapes else columns)]}


def _queries(shapes: Shapes, transform: Transform, arguments: Mapping[str, Any]) -> Shapes:
    """Four of each layer, stored two by two in a row (5.24.0, Inkling2LoopMergeMessageQueries)."""
    (rows, width), other = (shapes[source][0] for source in transform.sources)
    if other != (rows, width) or rows % 2:
        raise ValueError("queries of a layer come in two pairs")
    return {transform.targets[0]: [(rows // 2, 4, width)]}


def _unknown(shapes: Shapes, transform: Transform, arguments: Mapping[str, Any]) -> None:
    return None


_OPERATIONS: Mapping[str, Callable[[Shapes, Transform, Mapping[str, Any]], Shapes | None]] = {
    "MergeModulelist": _merge,
    "SplitModulelist": _split_list,
    "Concatenate": _concatenate,
    "Chunk": _chunk,
    "Transpose": _transpose,
    "Conv3dToLinear": _flatten,
    "LinearToConv3d": _unflatten,
    "Interleave": _same,
    "PermuteForRope": _permuted,
    "VisionUnfuseAndPermuteForRope": _chunk,
    "VisionFuseAndPermuteForRope": _concatenate,
    "ErnieFuseAndSplitTextVisionExperts": _ernie,
    "Inkling2UnpadVocab": _unpadded,
    "Inkling2LoopDequantizeExperts": _dequantized,
    "Inkling2LoopMergeMessageQueries": _queries,
}
