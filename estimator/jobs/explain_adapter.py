"""A published adapter against what its adapter_config.json implies on its base, the difference explained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from estimator.architecture.module import VARIES
from estimator.checkpoint.checkpoint import Checkpoint
from estimator.dtypes import stated_dtype
from estimator.errors import LoraSizeError, MalformedConfigError, UsageError
from estimator.jobs.adapter_layouts import in_another_layout
from estimator.jobs.base import Base, BaseCache, checkpoint_of
from estimator.jobs.compare_adapter import EXPLAINED, compare, file_bytes, parts_of, with_fused_names
from estimator.jobs.estimate import estimate
from estimator.lora.closest import listed
from estimator.report.answer import Answer
from estimator.report.units import tensors
from estimator.request.lora_config import class_wanted, from_mapping
from estimator.request.request import Request
from estimator.sizes.adapter_causes import Cause, Parts
from estimator.sizes.methods.classifier import left_out
from estimator.sizes.methods.saved import other_method_parts
from estimator.source.adapter import PICKLED, WEIGHTS
from estimator.source.find_adapter import find_adapter
from estimator.source.found import Found

DAMAGED = frozenset({"cut_short", "too_long", "no_tensors", "empty_tensors"})
_DOUBTFUL = frozenset({"saved_modules", "other_rank", "missing_layers"})  # another layout may say better whence
_REFUSALS = ("invalid_lora", "no_target_modules", "unsupported_module")
_TODAY = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}  # ViT and its kin, transformers 5
# How names of modules began before transformers 4.52 put the towers into one model.
_MOVED = {
    "language_model.model.": "model.language_model.",
    **{f"{part}.": f"model.{part}." for part in ("vision_tower", "vision_model", "visual", "multi_modal_projector")},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterExplanation:
    """A published adapter beside what its config implies, sizes in bytes."""

    adapter: Found
    answer: Answer | None  # what the config implies; None where PEFT refuses it today
    status: str  # "exact" | "explained" | "unexplained" | "damaged" | "unknown": no file to compare with
    implied_bytes: int | None
    actual_bytes: int | None
    tensors: int | None  # in the real file, where its header is at hand
    causes: tuple[Cause, ...]


def explain_adapter(adapter: str, request: Request, *, bases: BaseCache | None = None) -> AdapterExplanation:
    """The adapter at a path or of an id. `request` may name another base or what the config does not say.

    Its revision and subfolder are the base's where it names one, else the adapter's.

    Raises LoraSizeError where the adapter or its base can't be found or read.
    """
    found = find_adapter(
        adapter,
        revision=request.revision if request.model is None else None,
        subfolder=request.subfolder if request.model is None else None,
        token=request.token,
        offline=request.offline,
        timeout=request.timeout,
    )
    checkpoint = checkpoint_of(found) if found.files else None
    request, bases = _on_its_base(found, request), bases or BaseCache()
    if (found.config or {}).get("peft_type", "LORA") not in ("LORA", "ADALORA", None):
        return _of_another_method(found, checkpoint, request, bases)
    answer = _answer(request, bases)
    if isinstance(answer, Answer):
        implied = parts_of(answer.adaptation.tensors)
        causes = compare(implied, found, checkpoint, answer.tree, with_fused_names(answer, implied))
        explained = _explanation(found, checkpoint, answer, causes, answer.file_bytes)
    else:
        explained = _explanation(found, checkpoint, None, (_refused_today(checkpoint, answer),), None)
    if explained.status != "unexplained" and all(cause.code not in _DOUBTFUL for cause in explained.causes):
        return explained
    causes = in_another_layout(request, found, checkpoint, bases)
    if causes is None:
        return explained
    return _explanation(found, checkpoint, explained.answer, causes, explained.implied_bytes)


def _answer(request: Request, bases: BaseCache) -> Answer | LoraSizeError:
    """What the config implies, or why PEFT refuses it today. Raises LoraSizeError for what is not PEFT's refusal."""
    try:
        return estimate(request, bases=bases)
    except LoraSizeError as error:
        if error.code not in _REFUSALS:
            raise
        renamed = _under_names_of_today(request)
        if error.code != "no_target_modules" or renamed is None:
            return error
        try:
            return estimate(renamed, bases=bases)
        except LoraSizeError:
            return error


def _under_names_of_today(request: Request) -> Request | None:
    """The request with targets that transformers has renamed since; None where there are none."""
    targets = request.lora.get("target_modules")
    names = targets if isinstance(targets, (list, tuple)) and all(isinstance(name, str) for name in targets) else ()
    renamed = [_today(name) for name in names]
    if renamed == list(names):
        return None
    return request._replace(lora={**request.lora, "target_modules": renamed})


def _today(name: str) -> str:
    before = next((start for start in _MOVED if name.startswith(start)), "")
    return _MOVED[before] + name.removeprefix(before) if before else _TODAY.get(name, name)


def _explanation(
    found: Found,
    checkpoint: Checkpoint | None,
    answer: Answer | None,
    causes: tuple[Cause, ...] | None,
    implied_bytes: int | None,
    before: tuple[Cause, ...] = (),
) -> AdapterExplanation:
    """causes: None where nothing explains the file's size; `before` are told all the same."""
    damage = _damage(checkpoint) if checkpoint else ()
    all_causes = (*before, *damage, *(causes or ()))
    if causes == () and not damage and checkpoint and implied_bytes is not None:
        all_causes += _other_header(_actual_bytes(found), implied_bytes)
    return AdapterExplanation(
        adapter=found,
        answer=answer,
        status="unexplained" if causes is None else _status(all_causes, found, implied_bytes),
        implied_bytes=implied_bytes,
        actual_bytes=_actual_bytes(found),
        tensors=len(checkpoint.tensors) if checkpoint else None,
        causes=all_causes,
    )


def _of_another_method(
    found: Found, checkpoint: Checkpoint | None, request: Request, bases: BaseCache
) -> AdapterExplanation:
    method = str((found.config or {}).get("peft_type"))[:40]
    base = bases.base(request, class_wanted(request.lora))
    implied = other_method_parts(request.lora, base.tree)
    varies = implied is not None and any(part.shape == VARIES for part in implied.values())
    if implied is None or (varies and checkpoint is None):
        held = f" {_counted(checkpoint.tensors)} are in the file." if checkpoint else ""
        message = f"This is an adapter of {method}, not of LoRA, and what that saves of this base is not known.{held}"
        cause = Cause("not_lora", message, len(checkpoint.tensors) if checkpoint else 0, 0)
        return _explanation(found, checkpoint, None, (cause,), None)
    counted = tensors(len(implied)) if varies else _counted(implied)
    open_ = ", some of sizes that its config does not say" if varies else ""
    message = f"This is an adapter of {method}, not of LoRA, which saves {counted} of this base{open_}."
    named = Cause("other_method", message + _remarks(request.lora, base, implied), len(implied), 0)
    causes = compare(implied, found, checkpoint, base.tree)
    return _explanation(found, checkpoint, None, causes, None if varies else file_bytes(implied), before=(named,))


def _remarks(config: Mapping[str, Any], base: Base, implied: Parts) -> str:
    """What PEFT leaves out of an X-LoRA's file, and where the base's dtype, which nothing says, is the file's."""
    lost = [str(place) for place in left_out(config)] if config.get("peft_type") == "XLORA" else []
    remarks = ""
    if lost:
        layers = f"{'layer' if len(lost) == 1 else 'layers'} {listed(lost)}"
        remarks = f" PEFT 0.20 and later leave out what bears the number of a LoRA: {layers} of the classifier."
    if base.checkpoint is None and stated_dtype(base.config) is None:
        narrow = tuple(
            module._replace(parameters=tuple(p._replace(dtype="BF16") for p in module.parameters))
            for module in base.tree.modules
        )
        if other_method_parts(config, base.tree._replace(modules=narrow)) != implied:
            remarks += " Some have the base's dtype, which is not known without its headers: float32 is assumed."
    return remarks


def _counted(parts: Mapping[str, Any]) -> str:
    return f"{sum(prod(part.shape) for part in parts.values()):,} elements in {tensors(len(parts))}"


def _on_its_base(found: Found, request: Request) -> Request:
    config = dict(found.config or {})
    model = request.model or config.get("base_model_name_or_path")
    if not config.get("base_model_name_or_path") and not config.get("peft_type"):
        what = "adapter_config.json has neither a peft_type nor a base_model_name_or_path: it is none of PEFT's."
        raise MalformedConfigError(what, where="--adapter", way_out="name an adapter that PEFT has saved")
    if not isinstance(model, str) or not model:
        raise UsageError(
            "adapter_config.json names no base model.", where="base_model_name_or_path", way_out="name it with --model"
        )
    if not request.model:
        revision = from_mapping({"revision": config.get("revision")}).revision
        request = request._replace(revision=None if revision in ("", "main") else revision, subfolder=None)
    return request._replace(model=model, lora={**config, **request.lora})


def _actual_bytes(found: Found) -> int | None:
    if found.files:
        return found.files[0].actual_bytes
    return found.other_files.get(WEIGHTS, found.other_files.get(PICKLED))


def _status(causes: tuple[Cause, ...], found: Found, implied_bytes: int | None) -> str:
    codes = {cause.code for cause in causes}
    if _actual_bytes(found) is None:
        return "unknown"
    if codes & DAMAGED:
        return "damaged"
    if codes - EXPLAINED:
        return "unexplained"
    return "exact" if implied_bytes is not None and codes <= {"other_method"} else "explained"


def _damage(checkpoint: Checkpoint) -> tuple[Cause, ...]:
    (file,) = checkpoint.files
    if file.expected_bytes is None or file.actual_bytes is None or file.expected_bytes == file.actual_bytes:
        return ()
    code, how = ("cut_short", "cut short") if file.actual_bytes < file.expected_bytes else ("too_long", "too long")
    message = f"The file is {how}: its header calls for {file.expected_bytes:,} bytes, {file.actual_bytes:,} are there."
    return (Cause(code, message, 0, file.actual_bytes - file.expected_bytes),)


def _other_header(actual_bytes: int | None, implied_bytes: int) -> tuple[Cause, ...]:
    """Where the tensors are the same: safetensors writes no spaces, and PEFT one field of metadata."""
    more = 0 if actual_bytes is None else actual_bytes - implied_bytes
    if not more:
        return ()
    message = "The tensors are those implied; their header is written otherwise than by PEFT."
    return (Cause("other_header", message, 0, more),)


def _refused_today(checkpoint: Checkpoint | None, error: LoraSizeError) -> Cause:
    tensors = len(checkpoint.tensors) if checkpoint else 0
    why = error.what.replace(", so PEFT would refuse", "")
    return Cause("refused_today", f"PEFT would refuse this config today: {why}", tensors, 0)
