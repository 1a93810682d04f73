"""The modules of a base whose headers are read, whatever quantiser packed the weights in them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from estimator.architecture.build import build
from estimator.architecture.dimensions import check_dimensions
from estimator.architecture.formula import NoModel, Unfit
from estimator.architecture.layer_kinds import check_layer_kinds
from estimator.architecture.module import ModuleTree, full_name
from estimator.architecture.shapes import shapes_of
from estimator.architecture.stored_names import run_time_names, split_weights, splits_weights
from estimator.architecture.unfused import check_experts
from estimator.checkpoint.checkpoint import Checkpoint, stacks_of
from estimator.checkpoint.packed_layouts import LAYOUTS
from estimator.checkpoint.quantization import Quantization, quantization_of
from estimator.checkpoint.quantized import Unpacked, packed_layers, unpack
from estimator.checkpoint.unknown_packing import packed_otherwise
from estimator.checkpoint.unknown_shapes import infer_unknown, put_known
from estimator.errors import LoraSizeError, MalformedConfigError, NoWeightsError, UnsupportedError
from estimator.jobs.by_config import as_built, by_config, features_of
from estimator.lora.closest import listed
from estimator.notes import Note


def tree_of_headers(
    config: Mapping[str, Any], checkpoint: Checkpoint, task: str | None, num_labels: int | None
) -> ModuleTree:
    """Raises NoWeightsError where the features of packed layers can be told from neither headers nor config.json."""
    unpacked = unpack(config, checkpoint)
    if odd := packed_otherwise(config, unpacked.checkpoint):
        tree = _of_config(config, odd[0], (task, num_labels))
        if not _is_of_bitsandbytes(config):
            return tree
        check_states(tree, unpacked.checkpoint, odd)
    if unpacked.unknown:
        tree = _with_unknown_shapes(config, unpacked, task, num_labels)
    else:
        tree = build(config, unpacked.checkpoint, task=task, num_labels=num_labels)
    check_dimensions(tree)
    check_experts(tree)
    _check_layer_kinds(tree)
    quantized = quantization_of(config)
    if quantized is not None:
        tree = _with_packed_parts(tree, quantized, config, checkpoint, unpacked)
    incomplete = _lacks_sizes(tree)
    stored = (*checkpoint.tensors, *unpacked.checkpoint.tensors, *(f"{stem}.weight" for stem in unpacked.unknown))
    tree = as_built(tree, config, task, num_labels, stored)
    if quantized is not None and tree.basis == "exact":
        return _of_known_layout(tree, quantized.scheme, incomplete=incomplete)
    return tree._replace(basis="inferred") if _lacks_sizes(tree) else tree


def _with_packed_parts(
    tree: ModuleTree, quantized: Quantization, config: Mapping[str, Any], checkpoint: Checkpoint, unpacked: Unpacked
) -> ModuleTree:
    """The tree with a note on packed experts. Raises UnsupportedError for what transformers fails to split or fuse."""
    if quantized.scheme not in _SPLIT_WITH_THEIR_SCALES and splits_weights(tree):
        packed = [f"{stem}.weight" for stem in packed_layers(config, checkpoint)]
        _check_splitting(tree, packed, unpacked.checkpoint.tensors)
    if _has_separate_experts(tree):
        return tree
    if quantized.scheme == "compressed-tensors" and tree.basis == "exact":
        from estimator.sizes.schemes.compressed_experts import check_compressed_experts

        check_compressed_experts(checkpoint, quantized.fields)
    if _packs_experts(quantized.scheme, checkpoint):
        return tree._replace(notes=(*tree.notes, _packed_experts(quantized.scheme)))
    return tree


def _of_known_layout(tree: ModuleTree, scheme: str, *, incomplete: bool) -> ModuleTree:
    """The tree, inferred where what transformers makes of packed weights, and so what PEFT finds, is not known."""
    if incomplete:
        return tree._replace(basis="inferred", notes=(*tree.notes, _other_layout(scheme)))
    from estimator.sizes.quantized import SCHEMES  # few need all its schemes

    apart = scheme in _TAKES_EXPERTS_APART and any(note.code == "packed_experts" for note in tree.notes)
    return tree._replace(basis="inferred") if scheme not in SCHEMES or apart else tree


def _lacks_sizes(tree: ModuleTree) -> bool:
    return any(note.code == "missing_tensors" for note in tree.notes)


def _check_layer_kinds(tree: ModuleTree) -> None:
    """Raises MalformedConfigError where config.json lists kinds of layers for another number of them."""
    facts = shapes_of(tree.architecture or "") if tree.basis == "exact" else None
    if facts is None:
        return
    try:
        check_layer_kinds(tree.config, facts)
    except NoModel as error:
        way_out = "correct the field in config.json"
        raise MalformedConfigError(f"{error}.", where="config.json", way_out=way_out) from None
    except Unfit:
        return  # how many layers there are by default is not known; the headers tell


def _packs_experts(scheme: str, checkpoint: Checkpoint) -> bool:
    """Whether single experts are packed by a quantiser that knows none of the class's fused ones."""
    layout = None if scheme in _KNOW_FUSED_EXPERTS else LAYOUTS.get(scheme)
    return layout is not None and any(
        stack.before.endswith(".experts.") and stack.after.endswith(layout.marker)
        for stack in stacks_of(checkpoint.tensors)
    )


def _has_separate_experts(tree: ModuleTree) -> bool:
    return any(".experts." in module.name and module.kind == "Linear" for module in tree.modules)


_SPLIT_WITH_THEIR_SCALES = ("fp8", "mxfp8", "compressed-tensors")
_KNOW_FUSED_EXPERTS = ("fp8", "mxfp8", "mxfp4")
_TAKES_EXPERTS_APART = ("auto-round",)  # as it loads, of the classes that it has a block of its own for


def _packed_experts(scheme: str) -> Note:
    if scheme in _TAKES_EXPERTS_APART:
        message = (
            "Experts are packed one by one. AutoRound takes fused ones apart as it loads and makes Linears of routers, "
            "which are all that all-linear finds: footprint and counts here are those of plain, fused experts."
        )
        return Note("packed_experts", message)
    how = "unpacked as it loads" if scheme == "compressed-tensors" else "into which that quantiser unpacks nothing"
    return Note(
        "packed_experts",
        f"Experts are packed one by one by {scheme}; transformers 5.23.0 builds them as fused parameters, {how}: "
        "footprints and counts are those of plain ones.",
    )


def _of_config(config: Mapping[str, Any], odd: str, asked: tuple[str | None, int | None]) -> ModuleTree:
    """Of weights that nobody here can unpack config.json alone tells the shapes. `odd`: one of their names."""
    quantization = quantization_of(config)
    how = f"by {quantization.scheme!r}" if quantization else "though config.json names no quantiser"
    try:
        tree = by_config(config, *asked)
    except LoraSizeError as error:
        what = f"{odd} is packed {how}, in a layout that is not known, and its shape does not follow from config.json."
        way_out = "name the model that was quantised instead"
        raise NoWeightsError(what, where="--model", way_out=way_out) from error
    message = (
        f"Weights are packed {how}, in a layout that is not known ({odd}): the shapes are those of config.json, "
        "the bytes in memory those of the plain model, and PEFT may refuse layers that are counted here."
    )
    return tree._replace(basis="inferred", notes=(*tree.notes, Note("unknown_packing", message)))


def _is_of_bitsandbytes(config: Mapping[str, Any]) -> bool:
    quantization = quantization_of(config)
    return quantization is not None and quantization.scheme.startswith("bitsandbytes_")


def check_states(tree: ModuleTree, checkpoint: Checkpoint, odd: Collection[str]) -> None:
    """Raises UnsupportedError where one of the tensors `odd` belongs to a matrix, or has another shape than its layer.

    bitsandbytes packs in one way: where that is not what lies there, no weights come of it that could run. What the
    class has no place for stays unread, and integers in an embedding or a norm are taken as they are.
    """
    _check_splitting(tree, [name for name, tensor in checkpoint.tensors.items() if tensor.dtype in ("I8", "U8")], ())
    known = {full_name(m.name, p.name): (m.kind, p.shape) for m in tree.modules for p in m.parameters}
    weights = {name: re.sub(r"(\.weight\.absmax|\.SCB)$", ".weight", name) for name in odd}
    names = run_time_names(tree.config, tree, weights.values())
    scaled, packed = ({names[w] for n, w in weights.items() if n.endswith(end)} for end in (".SCB", ".weight"))
    for name, weight in weights.items():
        tensor = checkpoint.tensors[name]
        kind, shape = known.get(names[weight], ("other", tensor.shape))
        fits = tensor.shape == shape if name == weight else (tensor.dtype, tensor.shape) == ("F32", shape[:1])
        if fits and names[weight] in scaled & packed:
            continue  # the class renames weights alone: both come together where they are read
        if kind in ("Linear", "Conv1D") or shape != tensor.shape:
            raise _refusal(
                f"{name} lacks a part of what bitsandbytes needs beside it, and transformers cannot load it, or not "
                "run it."
            )


def _check_splitting(tree: ModuleTree, packed: Collection[str], plain: Iterable[str]) -> None:
    """Raises UnsupportedError where packed weights lie in a tensor that the class splits: what they need is not split.

    Nor is what is packed beside the tensor that it was a part of, as save_pretrained leaves torchao's. Floats of eight
    bits and their scales are split, and judged by these.
    """
    whole = split_weights(tree, packed)
    if not whole and (parted := split_weights(tree, plain)):
        apart = set(run_time_names(tree.config, tree, packed).values())
        whole = [parts for parts in parted if not apart.isdisjoint(parts)]
    for parts in whole:
        raise _refusal(
            f"{parts[0]} is packed in one tensor with {listed(parts[1:])}, which transformers cannot split to run it."
        )


def _refusal(what: str) -> UnsupportedError:
    way_out = "name the model that was quantised instead"
    return UnsupportedError(what, where="quantization_config in config.json", way_out=way_out)


def _other_layout(scheme: str) -> Note:
    return Note(
        "other_layout",
        f"Weights of {scheme} are stored in a layout that is not known: the features of these layers are those that "
        "config.json gives, and the bytes in memory are those of the usual layout.",
    )


def _with_unknown_shapes(
    config: Mapping[str, Any], unpacked: Unpacked, task: str | None, num_labels: int | None
) -> ModuleTree:
    """Where packed headers do not tell the layers' features: those of the class, by config.json; the rest inferred.

    Raises NoWeightsError where neither tells them.
    """
    known = put_known(unpacked, features_of(config, unpacked.unknown))
    inferred = infer_unknown(config, known)
    if inferred.unknown:
        what = f"the headers do not tell the features of {next(iter(inferred.unknown))}."
        way_out = "name the model that was quantised instead"
        raise NoWeightsError(what, where="--model", way_out=way_out)
    tree = build(config, inferred.checkpoint, task=task, num_labels=num_labels)
    if not known.unknown:
        return tree
    note = Note(
        "packed_shapes_inferred",
        "The headers do not tell the features of 4-bit layers; they were inferred from their size and the width.",
    )
    return tree._replace(basis="inferred", notes=(*tree.notes, note))
