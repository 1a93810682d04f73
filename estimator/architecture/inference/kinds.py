"""What stands behind a name of an unknown architecture: the kind of module, a convolution's groups, a printable class.

What a name means (an Embedding, a router that is no Linear, a transposed convolution) is what it means in most of
transformers' model families (names.json); shapes decide where the name says nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from estimator.architecture.module import Parameter

Shape = tuple[int, ...]
Meanings = Mapping[str, Any]  # meanings.py: "q_proj:2" -> kind; "buffers" -> names
MEANINGS = Path(__file__).with_name("names.json")

_BUFFERS = re.compile(
    r"(running_mean|running_var|num_batches_tracked|position_ids|inv_freq|masked_bias|e_score_correction_bias"
    r"|final_logits_bias|relative_position_index|attn_mask|mean|std|freqs|cos|sin)"
)
_EMBEDDING = re.compile(r"embed|lookup|^emb_|(emb|[wv][tpq]e|shared|_token|quer(y|ies)_feat(ure)?s?)$")
_PROJECTION = re.compile(r"(dense|proj|projections?|projector|linear|fc\d*|_out)$")
_LINEAR = re.compile(r"(linear|proj|fc\d?|w\d)$")
_TRANSPOSED = re.compile(r"transpos|deconv|convtr|upscale_conv|conv_?t(_|\d|$)")
_UPSAMPLES = re.compile(r"upsampl|(^|\.)ups\.")  # sound is made longer by transposed convolutions, images are not
_FIRST = re.compile(r"((conv_in|conv_?[01]|(layers|convs|conv_layers)\.0(\.conv)?|conv_0\.conv|conv_pre)$|patch_embed)")
_BY_DIMENSIONS = {2: "Linear", 3: "Conv1d", 4: "Conv2d", 5: "Conv3d"}
CONVOLUTIONS = ("Conv1d", "Conv2d", "Conv3d")


@cache
def known_meanings() -> Meanings:
    """What the file of meanings says."""
    return json.loads(MEANINGS.read_text(encoding="utf-8"))


class Sorted(NamedTuple):
    """A module's own tensors, told apart."""

    parameters: tuple[Parameter, ...]
    buffers: tuple[Parameter, ...]


def told_apart(owner: str, tensors: Collection[Parameter], meanings: Meanings) -> Sorted:
    """Parameters, weight first and bias last, and buffers, of a module of this full name."""
    names = {tensor.name for tensor in tensors}
    if {"weight", "running_mean"} <= names and "num_batches_tracked" not in names:
        return Sorted((), tuple(tensors))  # a batch norm that is frozen has nothing but buffers
    known, leaf = meanings.get("buffers", ()), owner.rpartition(".")[2]
    plain = {"weight", "bias"} if "weight" in names else set()  # a mask may be called bias, where it stands alone
    buffers = tuple(
        t
        for t in tensors
        if t.name not in plain and (_BUFFERS.fullmatch(t.name) or t.name in known or f"{leaf}.{t.name}" in known)
    )
    parameters = sorted((t for t in tensors if t not in buffers), key=lambda t: (t.name == "bias", t.name != "weight"))
    return Sorted(tuple(parameters), buffers)


def kind_of(name: str, own: Mapping[str, Shape], meanings: Meanings, experts: Collection[int] = ()) -> str:
    """One of `module.KINDS`, for a module of this full name with these own parameters.

    `experts`: the numbers of experts that config.json states; what is called as routers are is one if it has such rows.
    """
    if "in_proj_weight" in own or ("in_proj_bias" in own and "q_proj_weight" in own):
        return "MultiheadAttention"
    weight, bias = own.get("weight"), own.get("bias")
    if weight is None or set(own) - {"weight", "bias"} or len(weight) not in _BY_DIMENSIONS:
        return "other"
    if bias is not None and (
        len(bias) != 1 or bias[0] != weight[0]
    ):  # output last: Conv1D, or a transposed convolution
        return "Conv1D" if len(weight) == 2 and bias == weight[1:] else "other"
    meant = _meant(name, weight, meanings, experts) or _shown(name, weight, bias is not None, experts)
    output_first = bias is not None and weight[0] != weight[1]
    return "Linear" if meant == "Conv1D" and output_first else meant


def shows_conv1d(weight: Shape | None, bias: Shape | None) -> bool:
    """Whether the output comes last: of Conv1D, which always has a bias, a file holds some that are not square."""
    return (
        weight is not None and bias is not None and len(weight) == 2 and weight[0] != weight[1] and bias == weight[1:]
    )


def without_conv1d(meanings: Meanings) -> Meanings:
    """The meanings of names in a file that shows no Conv1D: what GPT-2's names are in code that has Linears there."""
    return {name: "Linear" if kind == "Conv1D" else kind for name, kind in meanings.items()}


def _meant(name: str, weight: Shape, meanings: Meanings, experts: Collection[int]) -> str | None:
    """What most families mean by the name; None where it says nothing. Routers have a row for each expert."""
    parent, _, leaf = name.rpartition(".")
    parent = parent.rpartition(".")[2]
    if leaf.isdigit():
        return None
    found = next(
        (meanings[key] for part in (f"{parent}.{leaf}", leaf) if (key := f"{part}:{len(weight)}") in meanings), None
    )
    return "Linear" if found == "other" and len(weight) == 2 and weight[0] not in experts else found


def _shown(name: str, weight: Shape, biased: bool, experts: Collection[int]) -> str:
    """What shapes suggest, and words that are in the name."""
    last = re.sub(r"\.\d+$", "", name).rpartition(".")[2].lower()
    if len(weight) == 2:
        embeds = not biased and _EMBEDDING.search(last) and not _PROJECTION.search(last)
        return "Embedding" if embeds else "Linear"
    if len(weight) == 3 and weight[0] in experts and _LINEAR.search(last):
        return "other"  # one matrix for each expert
    transposed = _TRANSPOSED.search(name.lower()) or (len(weight) == 3 and _UPSAMPLES.search(name.lower()))
    return "other" if transposed else _BY_DIMENSIONS[len(weight)]


def expert_counts(config: Mapping[str, Any]) -> set[int]:
    """Every number of experts that config.json states, here or in a section."""
    found = {value for key, value in config.items() if "expert" in key and type(value) is int}
    return found.union(*(expert_counts(value) for value in config.values() if isinstance(value, Mapping)))


def class_of_other(own: Collection[str], dimensions: int) -> str:
    """A class name for printing: norms by what they hold. `dimensions`: of the weight."""
    if "running_mean" in own:
        return "BatchNorm2d"
    if dimensions == 1:
        return "LayerNorm" if "bias" in own else "RMSNorm"
    return "Module"


def groups_of(name: str, kind: str, weight: Shape | None, config: Mapping[str, Any]) -> int:
    """A convolution's groups: one for each channel where each sees one, or what a `groups` field of the config says."""
    if kind not in CONVOLUTIONS or weight is None:
        return 1
    if weight[1] == 1 and weight[0] > 1:
        return 1 if _FIRST.search(name) else weight[0]
    return next((groups for field, groups in _group_fields(config) if _is_for(field, name, weight, groups)), 1)


def _is_for(field: str, name: str, weight: Shape, groups: int) -> bool:
    """Whether a field such as `num_conv_pos_embedding_groups` or `q_groups` is this convolution's."""
    if weight[1] * groups != weight[0]:
        return False
    words = [word for word in field.split("_")[:-1] if word not in ("num", "n")]
    own = re.split(r"[._]", ".".join(name.split(".")[-2:]))
    if not words:
        return field == "groups" and any(size > 1 for size in weight[2:])
    return all(any(part.startswith(word) or (part and word.startswith(part)) for part in own) for word in words)


def _group_fields(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if key.endswith("groups") and type(value) is int and value > 1:
            yield key, value
        elif isinstance(value, Mapping):
            yield from _group_fields(value)
