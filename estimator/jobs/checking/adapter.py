"""One adapter folder: what its files are, and whether their tensors are those that its config implies on its base."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from estimator.checkpoint.checkpoint import Checkpoint
from estimator.checkpoint.index import to_checkpoint
from estimator.errors import LoraSizeError, NotFoundError
from estimator.jobs.checking.limits import Limits, over_budget
from estimator.jobs.checking.local_base import is_absolute, local_base
from estimator.jobs.checking.pairs import pair_problems
from estimator.jobs.checking.paths import is_training_state, is_whole_model
from estimator.jobs.checking.weights import wrong_size
from estimator.report.findings import CheckedPath, Problem, is_not_judged, not_judged, refused
from estimator.request.other_trainers import why_unread
from estimator.sizes.adapter_causes import FLOATS
from estimator.source.adapter import CONFIG, PICKLED, WEIGHTS
from estimator.source.find_adapter import find_adapter
from estimator.source.found import Found

# Differences that other releases, other dtypes and other heads make: the file is right by its own layout.
FINE = frozenset(
    {
        "sixteen_bit",
        "other_dtype",
        "older_peft_names",
        "magnitude_names",
        "other_header",
        "embeddings_left_out",
        "base_layer_names",
        "older_names",
        "converted_names",
        "number_of_labels",
        "resized_vocabulary",
        "older_peft_bias",
        "experts_one_by_one",
        "names_not_in_class",
        "other_method",
        "bin_file",
    }
)
MENDS = {
    "embeddings_saved": "As it stands they do not train: save with save_embedding_layers=False, or name them in "
    "modules_to_save.",
    "doubled_prefix": "Wrap the base once and save the adapter again.",
    "missing_layers": "Set layers_to_transform to those that are there, or save the adapter again.",
    "dora_not_said": "Set use_dora to true.",
    "lora_bias_not_said": "Set lora_bias to true.",
    "bias_not_said": "Set bias to all or lora_only, as it was trained.",
    "tokens_not_said": "Set trainable_token_indices to the tokens that were trained.",
    "other_tokens": "Set trainable_token_indices to the tokens that were trained.",
    "names_of_another_class": "Set task_type to that of the class that it was trained on, or train it on this one.",
    "adapter_names": "Save the adapter again with save_pretrained.",
    "no_prefix": "Name them with the prefix, or save the adapter again with save_pretrained.",
    "wrapper_names": "Unwrap the model and save the adapter again.",
    "extra_tensors": "Save the adapter again without them.",
    "saved_modules": "Name them in modules_to_save, or save the adapter again without them.",
    "not_floats": "Save the adapter again.",
    "other_rank": "Set r and rank_pattern to the ranks of the file.",
    "missing_modules": "Save the adapter again, or set target_modules and modules_to_save to what was trained.",
    "extra_modules": "Set target_modules, or target_parameters, to what was trained, or name the base that it was "
    "trained on.",
}
_NO_TYPE = f"{CONFIG} has no peft_type, without which PEFT loads nothing. Name the method, such as LORA."
_NO_CONFIG = f"There is no {CONFIG}, without which PEFT loads nothing. Add it, or remove what is left of the adapter."


def check_adapter(folder: str, limits: Limits, strict: bool, bases: Any) -> CheckedPath:
    """Every problem of the folder; "skipped" where its base is not to be had and nothing else is wrong."""
    problems = _strangers(folder)
    try:
        found = find_adapter(folder if os.path.isabs(folder) else os.path.join(".", folder), offline=True)
    except NotFoundError as error:
        lost = Problem("unreadable", f"{error.what} Check its permissions and the disk.")
        there = os.path.isfile(os.path.join(folder, CONFIG))
        return CheckedPath(folder, "failed", (*problems, lost if there else Problem("no_config", _NO_CONFIG)))
    except LoraSizeError as error:
        return CheckedPath(folder, "failed", (*problems, _zero_bytes(folder) or refused(error)))
    problems += _config_problems(found.config or {})
    try:
        checkpoint = to_checkpoint(found.files) if found.files else None
    except LoraSizeError as error:
        return CheckedPath(folder, "failed", (*problems, refused(error)))
    problems += _file_problems(found, checkpoint)
    more, base_missing = _on_its_base(folder, found, checkpoint, limits, bases, bool(problems))
    problems += [problem for problem in more if problem.code not in {known.code for known in problems}]
    if base_missing and checkpoint is not None:
        problems += pair_problems(found.config or {}, checkpoint)
    if base_missing and not problems:
        return CheckedPath(folder, "failed" if strict else "skipped", (base_missing,))
    return CheckedPath(folder, "failed" if problems else "ok", tuple(problems))


def _zero_bytes(folder: str) -> Problem | None:
    for name in (CONFIG, WEIGHTS, PICKLED):
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            return Problem("empty_file", f"{name} has no bytes. Copy or save it again.")
    return None


def _strangers(folder: str) -> list[Problem]:
    """Files that belong to no adapter."""
    found = []
    for name in sorted(os.listdir(folder) if os.path.isdir(folder) else ()):
        if is_whole_model(name):
            message = f"{name} is a whole model beside an adapter. Remove it: the base is named in {CONFIG}."
            found.append(Problem("base_model_committed", message))
        elif is_training_state(name):
            message = f"{name} is training state: nobody needs it to load the adapter. Remove it."
            found.append(Problem("training_state_committed", message))
    return found


def _config_problems(config: Mapping[str, Any]) -> list[Problem]:
    base = config.get("base_model_name_or_path")
    found = []
    if not config.get("peft_type"):
        why = why_unread(config)
        message = f"{why}: PEFT loads none of it." if why else _NO_TYPE
        found.append(Problem("no_peft_type", message))
    if isinstance(base, str) and (is_absolute(base) or base.startswith("../")) and not os.path.isdir(base):
        found.append(local_base(base, "base_model_name_or_path"))
    pattern = config.get("rank_pattern") or {}
    if isinstance(pattern, Mapping) and config.get("peft_type") != "ADALORA":  # whose training leaves true and false
        odd = [
            key for key, value in pattern.items() if isinstance(value, bool) or not isinstance(value, int) or value < 1
        ]
        if odd:
            message = f"rank_pattern gives {odd[0][:100]!r} the rank {str(pattern[odd[0]])[:40]}. Give 1 or more."
            found.append(Problem("rank_pattern", message))
    return found


def _file_problems(found: Found, checkpoint: Checkpoint | None) -> list[Problem]:
    problems = []
    if not found.files and not found.other_files:
        problems.append(Problem("no_weights", f"there is no {WEIGHTS} beside {CONFIG}. Add it, or remove the config."))
    if PICKLED in found.other_files:
        where = "beside" if found.files or WEIGHTS in found.other_files else "instead of"
        message = f"{PICKLED} is a pickle {where} {WEIGHTS}. Save with safe_serialization=True and remove it."
        problems.append(Problem("pickle", message))
    if checkpoint is None:
        return problems
    (file,) = checkpoint.files
    if wrong := wrong_size(WEIGHTS, file.expected_bytes, file.actual_bytes):
        problems.append(wrong)
    return problems + _tensor_problems(checkpoint)


def _tensor_problems(checkpoint: Checkpoint) -> list[Problem]:
    tensors = checkpoint.tensors.values()
    if not tensors:
        return [Problem("no_tensors", f"{WEIGHTS} holds no tensor. Save the adapter again.")]
    problems = []
    matrices = [tensor for tensor in tensors if ".lora_" in tensor.name]  # of others, only the base tells what they are
    hollow = [tensor.name for tensor in matrices if 0 in tensor.shape]
    if hollow:
        message = f"{len(hollow)} tensors have no elements, {hollow[0][:200]} among them: what ZeRO-3 and FSDP leave"
        problems.append(Problem("empty_tensors", message + " behind. Gather the weights before saving."))
    odd = [tensor for tensor in matrices if tensor.dtype not in FLOATS]
    if odd:
        message = f"{odd[0].name[:200]} is {odd[0].dtype}; LoRA's matrices are floats. {MENDS['not_floats']}"
        problems.append(Problem("not_floats", message))
    return problems


def _on_its_base(
    folder: str, found: Found, checkpoint: Checkpoint | None, limits: Limits, bases: Any, broken: bool
) -> tuple[list[Problem], Problem | None]:
    """Problems of the adapter as its config and base have it; and, apart, that the base is not to be had."""
    from estimator.jobs.explain_adapter import explain_adapter
    from estimator.report.document import to_document
    from estimator.request.request import Request

    file_bytes = found.files[0].actual_bytes if found.files else found.other_files.get(WEIGHTS)
    elements = None if checkpoint is None else _elements(checkpoint)
    if not (found.config or {}).get("base_model_name_or_path"):
        over = over_budget(limits, file_bytes=file_bytes, parameters=elements, percent=None)
        message = f"Not judged: {CONFIG} names no base. Set base_model_name_or_path to the base's id on the Hub."
        return over, Problem("base_unknown", message)
    try:
        explained = explain_adapter(
            folder if os.path.isabs(folder) else os.path.join(".", folder), Request(offline=True), bases=bases
        )
    except LoraSizeError as error:
        over = over_budget(limits, file_bytes=file_bytes, parameters=elements, percent=None)
        if is_not_judged(error):
            return over, not_judged(error)
        return [refused(error), *over], None
    if any(cause.code == "not_lora" for cause in explained.causes):
        (cause,) = (cause for cause in explained.causes if cause.code == "not_lora")
        over = over_budget(limits, file_bytes=file_bytes, parameters=elements, percent=None)
        return over, Problem(cause.code, f"Not judged: {cause.message}")
    percent, parameters = None, elements
    if explained.answer is not None:
        document = to_document(explained.answer)
        percent, parameters = document["totals"]["trainable_percent"], document["adapter"]["parameters"]
    problems = [
        Problem(cause.code, f"{cause.message} {MENDS.get(cause.code, '')}".strip())
        for cause in explained.causes
        if cause.code not in FINE
    ]
    problems += _other_modules(explained, checkpoint)
    problems += _cannot_be_loaded(explained, checkpoint)
    if explained.status == "unexplained" and not problems and not broken:
        message = f"The file has {file_bytes or 0:,} bytes; its config implies {explained.implied_bytes or 0:,}."
        problems.append(Problem("size_differs", message + " Name the base that it was trained on."))
    return problems + over_budget(limits, file_bytes=file_bytes, parameters=parameters, percent=percent), None


def _other_modules(explained: Any, checkpoint: Checkpoint | None) -> list[Problem]:
    """Tensors of modules that the base has and the config does not target; only what the base lacks is an old name."""
    if checkpoint is None or explained.answer is None or all(cause.code != "older_names" for cause in explained.causes):
        return []
    implied = {tensor.name for tensor in explained.answer.adaptation.tensors}
    modules = {module.name for module in explained.answer.tree.modules}
    odd = [name for name in checkpoint.tensors if name not in implied and _adapted_module(name) in modules]
    if not odd:
        return []
    message = f"{len(odd)} tensors belong to modules that the config does not target, {odd[0][:200]} among them."
    return [Problem("extra_modules", f"{message} {MENDS['extra_modules']}")]


def _cannot_be_loaded(explained: Any, checkpoint: Checkpoint | None) -> list[Problem]:
    """A file just as PEFT has saved it, and that PEFT cannot read, or not all of it."""
    if explained.answer is None or explained.status not in ("exact", "explained"):
        return []
    notes = explained.answer.adaptation.notes
    notes = [note for note in notes if note.code == "loading_fails"]
    named = [Problem(note.code, f"{note.message} Name the inner ones, or less.") for note in notes]
    return named + _renamed_away(explained, checkpoint)


def _renamed_away(explained: Any, checkpoint: Checkpoint | None) -> list[Problem]:
    """Names as the model has them, which PEFT converts once more as if they were a checkpoint's (Laguna)."""
    from estimator.lora.converted_names import converted_names

    implied = {tensor.name for tensor in explained.answer.adaptation.tensors}
    config = explained.adapter.config or {}
    names = implied & checkpoint.tensors.keys() if checkpoint and config.get("peft_type") == "LORA" else ()
    converted = converted_names(explained.answer.tree, sorted(names))
    lost = [(name, new) for name, new in converted.items() if new not in implied]
    if not lost:
        return []
    old, new = lost[0]
    message = f"PEFT does not load {len(lost)} tensors, {old[:200]} among them: it looks for {new[:200]}."
    return [Problem("loading_fails", f"{message} Do not target these modules.")]


def _adapted_module(tensor: str) -> str | None:
    name, found, _ = tensor.removeprefix("base_model.model.").partition(".lora_")
    return name if found else None


def _elements(checkpoint: Checkpoint) -> int:
    from math import prod

    return sum(prod(tensor.shape) for tensor in checkpoint.tensors.values())
