"""Layouts in which an adapter's file is right though its config and base imply another today.

Each gives every cause of the difference, or None where the file has not this layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from estimator.architecture.module import ModuleTree
from estimator.checkpoint.checkpoint import Checkpoint
from estimator.errors import LoraSizeError
from estimator.jobs.base import BaseCache
from estimator.jobs.compare_adapter import EXPLAINED, compare, embedding_parts, explains, parts_of
from estimator.jobs.estimate import estimate, load_options
from estimator.lora.adapt import adapt
from estimator.lora.separate_experts import EXPERT_NAMES, with_separate_experts
from estimator.request.lora_config import class_wanted, from_mapping
from estimator.request.request import Request
from estimator.sizes.adapter_causes import EXPERT, Cause, is_embedding, resized_vocabulary
from estimator.source.adapter import WEIGHTS
from estimator.source.found import Found

Causes = tuple[Cause, ...]
_STEP = 64  # rows: two sizes tell what one row takes


def in_another_layout(request: Request, found: Found, checkpoint: Checkpoint | None, bases: BaseCache) -> Causes | None:
    """The causes in the first layout that leaves nothing open, or that the file's names are of; None where none is."""
    try:
        base = bases.base(request, class_wanted(request.lora))
        return _with_other_rows(request, found, checkpoint, base.tree, bases) or _with_experts_one_by_one(
            request, found, checkpoint, bases.sizes(base, load_options(request)).model
        )
    except LoraSizeError:  # what the config says can't be had in any layout
        return None


def _with_other_rows(
    request: Request, found: Found, checkpoint: Checkpoint | None, tree: ModuleTree, bases: BaseCache
) -> Causes | None:
    """As many embedding rows as the file holds, or as its trained tokens need: PEFT was given a resized model."""
    embeddings = embedding_parts(tree)
    had = max((part.shape[0] for part in embeddings.values()), default=0)
    if request.vocab_size is not None:
        return None
    solved = _solved_rows(request, found, had, bases) if checkpoint is None else ()
    for rows, save in (*_rows(request.lora, checkpoint, [*embeddings], had), *solved):
        try:
            answer = estimate(request._replace(vocab_size=rows, save_embedding_layers=save), bases=bases)
        except LoraSizeError:
            continue
        causes = compare(parts_of(answer.adaptation.tensors), found, checkpoint, answer.tree)
        if explains(causes) and not (causes and checkpoint is None):
            others = (cause for cause in causes if cause.code != "resized_vocabulary")
            return (resized_vocabulary(had, rows, 0, 0), *others)
    return None


def _solved_rows(request: Request, found: Found, had: int, bases: BaseCache) -> Iterator[tuple[int, str]]:
    """Rows near those that the base has with which the file is as long as its pointer says."""
    size = found.other_files.get(WEIGHTS)
    try:
        more, twice = (
            estimate(request._replace(vocab_size=had + rows, save_embedding_layers="auto"), bases=bases).file_bytes
            for rows in (_STEP, 2 * _STEP)
        )
    except LoraSizeError:  # another layout may do without
        return
    if size is None or more is None or twice is None or twice <= more:
        return
    about = had + _STEP + (size - more) * _STEP // (twice - more)
    near = (rows for rows in range(about - 2, about + 3) if rows != had and abs(rows - had) <= had // 10)
    yield from ((rows, "auto") for rows in near)


def _rows(
    config: Mapping[str, Any], checkpoint: Checkpoint | None, embeddings: list[str], had: int
) -> Iterator[tuple[int, str]]:
    stored = checkpoint.tensors.values() if checkpoint is not None else ()
    rows = {t.shape[0] for t in stored if len(t.shape) == 2 and ".lora_" not in t.name and _holds(t.name, embeddings)}
    yield from ((count, "auto") for count in sorted(rows - {had}) if count)
    indices = config.get("trainable_token_indices")
    lists = indices.values() if isinstance(indices, Mapping) else (indices,)
    tokens = (token for some in lists if isinstance(some, list) for token in some)
    last = max((token for token in tokens if type(token) is int), default=0)
    if last >= had:
        yield last + 1, "no"


def _holds(name: str, embeddings: list[str]) -> bool:
    for part in (".modules_to_save", ".original_module", ".token_adapter", ".base_layer"):
        name = name.replace(part, "")
    return name.endswith(".weight") and is_embedding(name, embeddings)


def _with_experts_one_by_one(
    request: Request, found: Found, checkpoint: Checkpoint | None, model: ModuleTree
) -> Causes | None:
    """Matrices for each expert, as on transformers 4. The file's own names settle it where they are at hand."""
    if checkpoint is not None and not any(EXPERT.search(name) for name in checkpoint.tensors):
        return None
    layouts = [_of_tree(with_separate_experts(model, names), request, found, checkpoint) for names in EXPERT_NAMES]
    known = [causes for causes in layouts if causes is not None and (checkpoint is not None or explains(causes))]
    return min(known, key=_tensors_left_open, default=None)


def _tensors_left_open(causes: Causes) -> int:
    return sum(cause.tensors for cause in causes if cause.code not in EXPLAINED)


def _of_tree(tree: ModuleTree | None, request: Request, found: Found, checkpoint: Checkpoint | None) -> Causes | None:
    if tree is None:
        return None
    try:
        implied = parts_of(adapt(tree, from_mapping(request.lora)).tensors)
    except LoraSizeError:
        return None
    experts = {name: part for name, part in implied.items() if EXPERT.search(name)}
    others = compare(implied, found, checkpoint, tree) if experts else None
    if others is None:
        return None
    message = "Experts are adapted one by one, as transformers 4 named them; transformers 5 fuses them."
    return (Cause("experts_one_by_one", message, len(experts), 0), *others)
