"""The real side of a verification, device by device: model, adapter, file. Needs torch, transformers and peft."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import peft
import torch

from estimator.dtypes import FROM_TORCH
from estimator.errors import UnsupportedError
from estimator.jobs.verifying import adapter as verify_adapter
from estimator.jobs.verifying import model as verify_model
from estimator.jobs.verifying.facts import Facts
from estimator.jobs.verifying.step import train_step
from estimator.request.request import Request
from estimator.sizes.memory.training import Training

_REFUSALS = (ValueError, TypeError, NotImplementedError, KeyError, AttributeError, RuntimeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is verified; what it finds is collected in the two lists."""

    request: Request  # what its config file says filled in
    lora: dict[str, Any]  # the effective LoraConfig's fields
    rows: int | None  # of the resized embedding
    wanted: verify_model.Wanted
    folder: str  # with config.json alone
    device: str
    quantised: bool  # by these options or in the checkpoint
    saves: bool  # whether the estimate says that PEFT can save
    step: Training | None  # trained once with the adapter
    progress: Callable[[str], None]
    left_out: list[str] = field(default_factory=list)
    measured: dict[str, int] = field(default_factory=dict)


def real_facts(run: Run) -> Facts:
    """Raises UnsupportedError where the model can't be had here; what PEFT refuses is a fact."""
    return _on_meta(run) if run.device == "meta" else _with_weights(run)


def _on_meta(run: Run) -> Facts:
    run.progress(f"building {run.wanted.config.get('model_type')} without weights")
    model = verify_model.build_on_meta(run.wanted, run.folder)
    base = verify_adapter.base_facts(model)
    base |= verify_adapter.module_facts(model)
    adapted, refusal = _adapted(run, model)
    facts: dict[str, Any] = {"refusal": refusal} if adapted is None else verify_adapter.adapted_facts(adapted)
    if adapted is not None and run.saves:
        facts["tensors"] = verify_adapter.file_tensors(adapted, _save_embedding_layers(run))
        facts["file_bytes"] = verify_adapter.file_bytes_on_meta(facts["tensors"])
    if run.quantised:
        run.left_out.append("bytes and counts of the quantised base: --device cpu or cuda loads it")
        for name in ("base_bytes", "buffers", "footprint", "all_parameters"):
            (base if name in base else facts).pop(name, None)
    return Facts(**base, **facts)


def _with_weights(run: Run) -> Facts:
    run.progress(f"loading the weights onto {run.device}")
    model = verify_model.load(run.wanted, run.folder, run.device)
    model.name_or_path = run.folder
    base = verify_adapter.base_facts(model)
    if run.quantised:
        base["converted"] = verify_adapter.converted_modules(model)
        run.left_out.append("shapes of single modules: --device meta compares them")
    else:
        base |= verify_adapter.module_facts(model)
    _measure(run, "allocated after loading")
    if run.wanted.load.prepare_kbit:
        model = peft.prepare_model_for_kbit_training(model)
        base.update(verify_adapter.base_facts(model))
    adapted, refusal = _adapted(run, model)
    if adapted is None:
        return Facts(**base, refusal=refusal)
    _measure(run, "allocated with the adapter")
    run.progress("saving the adapter into a temporary folder")
    facts = verify_adapter.adapted_facts(adapted)
    if run.saves:
        facts["tensors"], facts["file_bytes"] = verify_adapter.saved_file(adapted, _save_embedding_layers(run))
    if run.step is not None:
        _train(run, adapted, run.step)
    return Facts(**base, **facts)


def _adapted(run: Run, model: Any) -> tuple[Any | None, str | None]:
    """The PeftModel, or what PEFT says against it."""
    dtype = FROM_TORCH.get(run.request.adapter_dtype or "", run.request.adapter_dtype)
    try:
        if run.rows is not None:
            model.resize_token_embeddings(run.rows, mean_resizing=False)
        return verify_adapter.put_on(model, run.lora, dtype, run.device == "meta"), None
    except _REFUSALS as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        return None, f"{type(error).__name__}: {text[:300]}"


def _save_embedding_layers(run: Run) -> str | bool:
    return {"yes": True, "no": False}.get(run.request.save_embedding_layers or "auto", "auto")


def _measure(run: Run, name: str) -> None:
    if run.device == "cuda":
        run.measured[name] = torch.cuda.memory_allocated()


def _train(run: Run, adapted: Any, step: Training) -> None:
    run.progress(f"training one step of {step.batch_size} x {step.sequence_length} tokens")
    try:
        run.measured.update(train_step(adapted, run.device, step))
    except UnsupportedError as error:
        run.left_out.append(error.what)
