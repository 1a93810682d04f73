"""A published adapter against what its adapter_config.json implies on its base, the difference explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from estimator.architecture.module import ModuleTree
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.checkpoint.index import to_checkpoint
from estimator.errors import LoraSizeError, UsageError
from estimator.jobs.base import BaseCache, Progress
from estimator.jobs.estimate import estimate
from estimator.report.answer import Answer
from estimator.request.request import Request
from estimator.sizes.adapter_causes import PREFIX, Cause, Part, Parts, causes_of
from estimator.sizes.adapter_file import adapter_file_bytes
from estimator.sizes.adapter_guesses import guess_bin_causes, guess_causes
from estimator.sizes.other_methods import other_method_causes
from estimator.source.adapter import PICKLED, WEIGHTS, find_adapter
from estimator.source.found import Found

# Causes after which nothing is left open; the others are named all the same.
EXPLAINED = frozenset({
    "sixteen_bit", "other_dtype", "doubled_prefix", "no_prefix", "older_peft_names", "base_layer_names", "older_names",
    "number_of_labels", "embeddings_saved", "resized_vocabulary", "older_peft_bias", "experts_one_by_one", "bin_file",
    "names_not_in_class", "saved_modules", "other_rank", "other_method",
})  # fmt: skip
EMPTY_BYTES = 128  # a header that names one lora_A and one lora_B is longer
DAMAGED = frozenset({"cut_short", "too_long", "no_tensors"})
_TODAY = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}  # ViT and its kin, transformers 5
_QKV = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("q", "k", "v"))


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterExplanation:
    adapter: Found
    answer: Answer | None  # what the config implies; None where PEFT refuses it today
    status: str  # "exact" | "explained" | "unexplained" | "damaged" | "unknown": no file to compare with
    implied_bytes: int | None
    actual_bytes: int | None
    tensors: int | None  # in the real file, where its header is at hand
    causes: tuple[Cause, ...]


def explain_adapter(
    adapter: str, request: Request, *, bases: BaseCache | None = None, progress: Progress = None
) -> AdapterExplanation:
    """The adapter at a path or of an id. `request` may name another base or what the config does not say.

    Raises LoraSizeError where the adapter or its base can't be found or read.
    """
    found = find_adapter(
        adapter,
        revision=request.revision if request.model is None else None,
        token=request.token,
        offline=request.offline,
        timeout=request.timeout,
    )
    checkpoint = to_checkpoint(found.files) if found.files else None
    bases = bases or BaseCache()
    if (found.config or {}).get("peft_type", "LORA") not in ("LORA", "ADALORA", None):
        return _of_another_method(found, checkpoint, bases.base(_on_its_base(found, request), None, progress).tree)
    try:
        answer = estimate(_on_its_base(found, request), bases=bases, progress=progress)
    except LoraSizeError as error:
        if error.code not in ("invalid_lora", "no_target_modules", "unsupported_module"):
            raise
        renamed = _under_names_of_today(_on_its_base(found, request))
        if error.code != "no_target_modules" or renamed is None:
            return _refused(found, checkpoint, error)
        try:
            answer = estimate(renamed, bases=bases, progress=progress)
        except LoraSizeError:
            return _refused(found, checkpoint, error)
    return _explanation(found, checkpoint, answer, _compare(answer, found, checkpoint))


def _under_names_of_today(request: Request) -> Request | None:
    """The request with targets that transformers has renamed since; None where there are none."""
    targets = request.lora.get("target_modules")
    if not isinstance(targets, (list, tuple)) or not any(name in _TODAY for name in targets):
        return None
    return replace(request, lora={**request.lora, "target_modules": [_TODAY.get(name, name) for name in targets]})


def _explanation(
    found: Found, checkpoint: Checkpoint | None, answer: Answer | None, causes: tuple[Cause, ...] | None
) -> AdapterExplanation:
    """causes: None where nothing fits."""
    all_causes = (*(_damage(checkpoint) if checkpoint else ()), *(causes or ()))
    return AdapterExplanation(
        adapter=found,
        answer=answer,
        status="unexplained" if causes is None else _status(all_causes, found),
        implied_bytes=answer.file_bytes if answer else None,
        actual_bytes=_actual_bytes(found),
        tensors=len(checkpoint.tensors) if checkpoint else None,
        causes=all_causes,
    )


def _of_another_method(found: Found, checkpoint: Checkpoint | None, tree: ModuleTree) -> AdapterExplanation:
    config, actual = found.config or {}, _actual_bytes(found)
    causes = other_method_causes(config, tree, actual) if actual is not None else None
    if causes is None:
        message = f"adapter_config.json is of {config.get('peft_type')}, another method than LoRA."
        causes = (Cause("not_lora", message, len(checkpoint.tensors) if checkpoint else 0, 0),)
    return _explanation(found, checkpoint, None, causes)


def _on_its_base(found: Found, request: Request) -> Request:
    config = dict(found.config or {})
    model = request.model or config.get("base_model_name_or_path")
    if not isinstance(model, str) or not model:
        raise UsageError(
            "adapter_config.json names no base model.", where="base_model_name_or_path", way_out="name it with --model"
        )
    revision = request.revision if request.model else config.get("revision")
    return replace(request, model=model, revision=revision, lora={**config, **request.lora})


def _actual_bytes(found: Found) -> int | None:
    if found.files:
        return found.files[0].actual_bytes
    return found.other_files.get(WEIGHTS, found.other_files.get(PICKLED))


def _status(causes: tuple[Cause, ...], found: Found) -> str:
    codes = {cause.code for cause in causes}
    if _actual_bytes(found) is None:
        return "unknown"
    if codes & DAMAGED:
        return "damaged"
    if codes - EXPLAINED:
        return "unexplained"
    return "explained" if codes else "exact"


def _damage(checkpoint: Checkpoint) -> tuple[Cause, ...]:
    (file,) = checkpoint.files
    if file.expected_bytes is None or file.actual_bytes is None or file.expected_bytes == file.actual_bytes:
        return ()
    code, how = ("cut_short", "cut short") if file.actual_bytes < file.expected_bytes else ("too_long", "too long")
    message = f"The file is {how}: its header calls for {file.expected_bytes:,} bytes, {file.actual_bytes:,} are there."
    return (Cause(code, message, 0, file.actual_bytes - file.expected_bytes),)


def _compare(answer: Answer, found: Found, checkpoint: Checkpoint | None) -> tuple[Cause, ...] | None:
    """What makes the difference; None where the size fits no hypothesis."""
    implied = {tensor.name: Part(tensor.dtype, tuple(tensor.shape)) for tensor in answer.adaptation.tensors}
    embeddings = _embeddings(answer.tree)
    if checkpoint is not None:
        real = {name: Part(tensor.dtype, tensor.shape) for name, tensor in checkpoint.tensors.items()}
        return causes_of(implied, real, [name.removeprefix(PREFIX).removesuffix(".weight") for name in embeddings])
    if WEIGHTS in found.other_files:
        if found.other_files[WEIGHTS] <= EMPTY_BYTES:
            return causes_of(implied, {}, ())
        others = _fused(answer, implied)
        return guess_causes(implied, found.other_files[WEIGHTS], _file_bytes, embeddings, others)
    if PICKLED in found.other_files:
        return guess_bin_causes(implied, found.other_files[PICKLED])
    return ()


def _file_bytes(parts: Parts) -> int:
    return adapter_file_bytes(Tensor(name, part.dtype, part.shape, WEIGHTS) for name, part in parts.items())[0]


def _embeddings(tree: ModuleTree) -> Mapping[str, Part]:
    """The tensors that PEFT saves along where it takes the vocabulary for resized."""
    modules = {module.name: module for module in tree.modules}
    names = [name for name in (tree.input_embedding, tree.output_embedding) if name in modules]
    weights = {name: next((p for p in modules[name].parameters if p.name == "weight"), None) for name in names}
    return {f"{PREFIX}{name}.weight": Part("F32", weight.shape) for name, weight in weights.items() if weight}


def _fused(answer: Answer, implied: Parts) -> Iterator[tuple[Cause, Parts]]:
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
    linears = {module.name: module.parameters[0].shape for module in tree.modules if module.kind == "Linear"}
    for q, k, v in _QKV:
        for module, shape in linears.items():
            parent, _, leaf = module.rpartition(".")
            others = [linears.get(f"{parent}.{other}") for other in (k, v)]
            if leaf == q and None not in others:
                out = shape[0] + sum(other[0] for other in others)
                yield f"{PREFIX}{parent}.{name}.lora_A.weight", Part("F32", (rank, shape[1]))
                yield f"{PREFIX}{parent}.{name}.lora_B.weight", Part("F32", (out, rank))


def _refused(found: Found, checkpoint: Checkpoint | None, error: LoraSizeError) -> AdapterExplanation:
    tensors = len(checkpoint.tensors) if checkpoint else 0
    cause = Cause("refused_today", f"PEFT would refuse this config today: {error.what}", tensors, 0)
    return _explanation(found, checkpoint, None, (cause,))
