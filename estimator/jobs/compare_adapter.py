"""The tensors that a config implies against an adapter's file: its header, or its size where that is all there is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeGuard

from estimator.architecture.facts import class_facts
from estimator.architecture.module import ModuleTree
from estimator.architecture.stored_names import renamed_alone
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.lora.converted_names import converted_names
from estimator.lora.tensors import SavedTensor
from estimator.report.answer import Answer
from estimator.sizes.adapter_causes import PREFIX, Cause, Part, Parts
from estimator.sizes.adapter_differences import causes_of
from estimator.sizes.adapter_file import adapter_file_bytes
from estimator.sizes.adapter_guesses import guess_bin_causes, guess_causes
from estimator.source.adapter import PICKLED, WEIGHTS
from estimator.source.found import Found

# Causes after which nothing is left open; the others are named all the same.
EXPLAINED = frozenset({
    "sixteen_bit", "other_dtype", "doubled_prefix", "no_prefix", "wrapper_names", "older_peft_names",
    "base_layer_names", "older_names", "number_of_labels", "embeddings_saved", "resized_vocabulary",
    "older_peft_bias", "experts_one_by_one", "bin_file", "names_not_in_class", "saved_modules", "other_rank",
    "other_method", "extra_tensors", "adapter_names", "magnitude_names", "embeddings_left_out",
    "missing_layers", "dora_not_said", "lora_bias_not_said", "bias_not_said", "tokens_not_said", "other_tokens",
    "converted_names", "names_of_another_class", "other_header",
})  # fmt: skip
EMPTY_BYTES = 128  # a header that names one lora_A and one lora_B is longer
_QKV = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("q", "k", "v"))


def parts_of(tensors: Iterable[SavedTensor]) -> Parts:
    """The same by name."""
    return {tensor.name: Part(tensor.dtype, tuple(tensor.shape)) for tensor in tensors}


def compare(
    implied: Parts,
    found: Found,
    checkpoint: Checkpoint | None,
    tree: ModuleTree,
    others: Iterable[tuple[Cause, Parts]] = (),
) -> tuple[Cause, ...] | None:
    """What makes the difference; None where the size fits no hypothesis. `others` are further ones, for a bare size."""
    embeddings = embedding_parts(tree)
    if checkpoint is not None:
        real: Parts = {t.name: Part(t.dtype, t.shape) for t in checkpoint.tensors.values()}
        config = found.config or {}
        renamed: tuple[Cause, ...] = ()
        if config.get("peft_type", "LORA") == "LORA":
            real, renamed = _as_peft_reads(implied, real, tree)
        elsewhere = _in_another_class(implied, tree) if config.get("task_type") else {}
        return (*renamed, *causes_of(implied, real, embeddings, elsewhere))
    if WEIGHTS in found.other_files:
        if found.other_files[WEIGHTS] <= EMPTY_BYTES:
            return causes_of(implied, {}, embeddings)
        return guess_causes(implied, found.other_files[WEIGHTS], file_bytes, embeddings, others)
    if PICKLED in found.other_files:
        return guess_bin_causes(implied, found.other_files[PICKLED])
    return ()


def _as_peft_reads(implied: Parts, real: Parts, tree: ModuleTree) -> tuple[Parts, tuple[Cause, ...]]:
    """The real tensors under the names that PEFT gives them where it converts those of this base."""
    converted = converted_names(tree, real)
    found = {old: new for old, new in converted.items() if old not in implied and new in implied and new not in real}
    if not found or len(set(found.values())) < len(found):
        return real, ()
    old, new = next(iter(found.items()))
    message = f"The names are not those that PEFT saves today, which reads them all the same: {old} as {new}."
    cause = Cause("converted_names", message, len(found), 0)
    return {found.get(name, name): part for name, part in real.items()}, (cause,)


def _in_another_class(implied: Parts, tree: ModuleTree) -> dict[str, str]:
    """Names that AutoModel's class gives to tensors of one with a head, or the other way round, with those implied.

    Those are left out that an older release may have given them in this class: its checkpoints have them. Its text
    model had a head of its own then, and in none its names.
    """
    facts = class_facts(tree.architecture or "")
    if facts is None or not facts.prefix:
        return {}
    within = f"{PREFIX}{facts.prefix}."
    found = {PREFIX + name.removeprefix(within): name for name in implied if name.startswith(within)}
    found = found or {within + name.removeprefix(PREFIX): name for name in implied if name.startswith(PREFIX)}
    text_model = f"{PREFIX}{(tree.input_embedding or '').rpartition('.')[0]}."
    today = renamed_alone(tree, [name.removeprefix(PREFIX) for name in found])
    return {
        name: new
        for name, new in found.items()
        if name not in implied and (new.startswith(text_model) or PREFIX + today[name.removeprefix(PREFIX)] != new)
    }


def explains(causes: tuple[Cause, ...] | None) -> TypeGuard[tuple[Cause, ...]]:
    """Whether nothing is left open."""
    return causes is not None and all(cause.code in EXPLAINED for cause in causes)


def file_bytes(parts: Parts) -> int:
    """Bytes of the safetensors file that holds these tensors."""
    return adapter_file_bytes(Tensor(name, part.dtype, part.shape, WEIGHTS) for name, part in parts.items())[0]


def embedding_parts(tree: ModuleTree) -> Parts:
    """The tensors that PEFT saves along where it takes the vocabulary for resized."""
    modules = {module.name: module for module in tree.modules}
    names = [name for name in (tree.input_embedding, tree.output_embedding) if name in modules]
    weights = {name: next((p for p in modules[name].parameters if p.name == "weight"), None) for name in names}
    return {f"{PREFIX}{name}.weight": Part("F32", weight.shape) for name, weight in weights.items() if weight}


def with_fused_names(answer: Answer, implied: Parts) -> Iterator[tuple[Cause, Parts]]:
    """The names in target_modules that the class does not have, taken for the attention's fused projection."""
    asked = answer.adaptation.config.get("target_modules")
    rank = answer.adaptation.config.get("r")
    names = [module.name for module in answer.tree.modules]
    lost = [] if isinstance(asked, str) else [n for n in asked or () if not any(has.endswith(n) for has in names)]
    for name in lost:
        added = dict(_fused_parts(answer.tree, name, rank))
        if added:
            into, out = list(added.values())[:2]
            message = (
                f"{name} names nothing in {answer.tree.architecture}: the base had modelling code of its own. With it "
                f"as one module for q, k and v ({into.shape[1]:,} -> {out.shape[0]:,}) the data fits to the byte."
            )
            bytes_ = sum(part.bytes for part in added.values())
            yield Cause("names_not_in_class", message, len(added), bytes_), {**implied, **added}


def _fused_parts(tree: ModuleTree, name: str, rank: Any) -> Iterator[tuple[str, Part]]:
    linears: Mapping[str, tuple[int, ...]] = {m.name: m.parameters[0].shape for m in tree.modules if m.kind == "Linear"}
    for q, k, v in _QKV:
        for module, shape in linears.items():
            parent, _, leaf = module.rpartition(".")
            key, value = (linears.get(f"{parent}.{other}") for other in (k, v))
            if leaf == q and key is not None and value is not None:
                out = shape[0] + key[0] + value[0]
                yield f"{PREFIX}{parent}.{name}.lora_A.weight", Part("F32", (rank, shape[1]))
                yield f"{PREFIX}{parent}.{name}.lora_B.weight", Part("F32", (out, rank))
