"""The estimate beside PEFT's outcome: every difference in words."""

from __future__ import annotations

from collections import Counter
from typing import Any

from estimator.architecture.module import VARIES
from estimator.errors import LoraSizeError
from estimator.jobs.base import BaseCache
from estimator.jobs.estimate import estimate
from estimator.report.document import to_document
from estimator.request.request import Request
from tests.lora.judge.truth import Outcome

REFUSALS = ("no_target_modules", "unsupported_module", "invalid_lora")


def differences(
    folder: str, lora: dict[str, Any], options: dict[str, Any], real: Outcome, bases: BaseCache
) -> list[str]:
    """What the estimate says otherwise than PEFT; [] where they agree."""
    try:
        answer = estimate(Request(model=folder, lora=lora, **options), bases=bases)
    except LoraSizeError as error:
        said = f"{error.code}: {error.what}"
        honest = error.code == "unsupported" and (
            options.get("vocab_size") is not None or error.where in ("--model", "target_modules")
        )
        if real.stage in ("save", "done") and not honest and not _is_inferred(folder, lora, bases):
            return [f"PEFT trains {real.trainable:,} parameters, refused with {said}"]
        refused = error.code in REFUSALS or (error.code == "usage" and options.get("vocab_size") is not None)
        return [] if refused or honest else [f"PEFT refuses ({real.error[:200]}), answered {said}"]
    adaptation = answer.adaptation
    if answer.tree.basis == "inferred":  # says itself that it may be wrong: GPT2DoubleHeadsModel is in no Auto class
        return []
    if real.stage not in ("save", "done"):
        return [
            f"PEFT refuses in {real.stage} ({real.error[:300]}), got {adaptation.trainable_parameters:,} parameters"
        ]
    found = _counts(adaptation, to_document(answer)["totals"]["all_parameters"], real)
    if real.stage == "save":
        return found if answer.file_bytes is None else [*found, f"PEFT cannot save ({real.error[:200]})"]
    tensors = {tensor.name: (tensor.dtype, *tensor.shape) for tensor in adaptation.tensors}
    texts = {tensor.name for tensor in adaptation.tensors if tensor.shape == VARIES}
    tensors |= {name: real.tensors[name] for name in texts & real.tensors.keys()}
    if answer.file_bytes != (None if texts else real.file_bytes):
        found.append(f"file {answer.file_bytes} != {real.file_bytes} ({adaptation.save_error})")
    missing = sorted(real.tensors.items() - tensors.items())
    extra = sorted(tensors.items() - real.tensors.items())
    if missing or extra:
        found.append(f"tensors: missing {missing[:3]} extra {extra[:3]}")
    return found


def _is_inferred(folder: str, lora: dict[str, Any], bases: BaseCache) -> bool:
    """Whether the model says itself that it may be wrong, as GPT2DoubleHeadsModel, whose tied head no file holds."""
    return bases.base(Request(model=folder), lora.get("task_type")).tree.basis == "inferred"


def _counts(adaptation: Any, total: int, real: Outcome) -> list[str]:
    found = []
    if adaptation.trainable_parameters != real.trainable:
        found.append(f"trainable {adaptation.trainable_parameters} != {real.trainable}")
    if total != real.total:
        found.append(f"all {total} != {real.total}")
    said, true = Counter((module.name, module.rank) for module in adaptation.modules), Counter(real.modules)
    if said != true:
        found.append(f"modules: missing {list(true - said)[:3]} extra {list(said - true)[:3]}")
    parts = sum(adaptation.parameters_by_part.values())
    if parts != adaptation.trainable_parameters:
        found.append(f"parts sum to {parts}")
    return found
