"""Proof on the real thing: the model as its user would have it, PEFT's adapter on it, and every promise compared."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any

from estimator.errors import UnsupportedError, UsageError
from estimator.jobs.estimate import load_options, vocab_size
from estimator.jobs.verify_facts import Facts, compare, promised
from estimator.report.answer import Answer
from estimator.report.verify_result import Verification
from estimator.request.load_options import LoadOptions
from estimator.request.request import Request

BITSANDBYTES = ("int8", "nf4", "fp4")
DEVICES = ("meta", "cpu", "cuda")
LIBRARIES = ("lora-size", "torch", "transformers", "peft", "accelerate", "bitsandbytes", "safetensors")
Progress = Callable[[str], None] | None


def verify(
    request: Request,
    answer: Answer,
    *,
    device: str | None = None,
    train_step: bool = False,
    trust_remote_code: bool = False,
    progress: Progress = None,
) -> Verification:
    """The estimate beside the real model. `device` None: cuda where there is one, else meta.

    Raises UnsupportedError where the libraries are missing, the model can't be built or does not fit, UsageError for
    a device that is none.
    """
    _require_libraries(device, load_options(request))
    from estimator.jobs import verify_model

    device = _device(device)
    say = progress or (lambda text: None)
    if train_step and device == "meta":
        raise UsageError(
            "nothing can be trained on meta.", where="--train-step", way_out="--device cpu or --device cuda"
        )
    wanted = _wanted(request, answer, trust_remote_code)
    if device != "meta":
        _must_fit(answer, device)
    _quiet()
    left_out: list[str] = []
    with verify_model.config_folder(answer.tree.config) as folder:
        say(f"building {answer.found.id} on {device}")
        if device == "meta":
            real, measured = _on_meta(request, answer, wanted, folder, left_out), {}
        else:
            real, measured = _with_weights(request, answer, wanted, folder, device, left_out, train_step)
    comparisons, differences = compare(_comparable(promised(answer), device, left_out), real)
    return Verification(
        device=device,
        comparisons=comparisons,
        differences=differences,
        left_out=tuple(left_out),
        measured=measured,
        versions=_versions(),
    )


def _require_libraries(device: str | None, load: LoadOptions) -> None:
    from importlib.util import find_spec

    needed = ["torch", "transformers", "peft", *(() if device == "meta" else ("accelerate",))]
    if device != "meta" and load.base_precision in BITSANDBYTES:
        needed.append("bitsandbytes")
    if missing := [name for name in needed if find_spec(name) is None]:
        raise UnsupportedError(
            f"verifying needs {', '.join(missing)}, not installed here.",
            where="--verify",
            way_out="pip install 'lora-size[verify]'",
        )


def _device(device: str | None) -> str:
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "meta"
    if device not in DEVICES:
        raise UsageError(
            f"there is no device {device[:40]!r}.", where="--device", way_out="one of " + ", ".join(DEVICES)
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise UnsupportedError(
            "torch sees no CUDA device here.", where="--device cuda", way_out="--device cpu or --device meta"
        )
    return device


def _wanted(request: Request, answer: Answer, trust_remote_code: bool) -> Any:
    from estimator.jobs.verify_model import Wanted

    load = load_options(request)
    plain = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}
    changed = bool(request.set)
    found = answer.found
    return Wanted(
        config=answer.tree.config,
        place=None if changed else _place(found.id, found.source),
        revision=found.revision if found.source in ("hub", "cache") else None,
        task=answer.adaptation.config.get("task_type"),
        num_labels=request.num_labels,
        dtype=plain.get(load.base_precision, load.dtype),
        untied=found.untied,
        kept_apart=_kept_apart(answer),
        load=load,
        trust_remote_code=trust_remote_code,
        token=request.token,
    )


def _kept_apart(answer: Answer) -> frozenset[str]:
    """Stored names that the estimate ties to nothing: without weights it can't be seen whether their values are equal."""
    import json

    headers = (file.header for file in answer.found.files)
    stored = {name for header in headers for name in (json.loads(header) if isinstance(header, bytes) else header)}
    return frozenset(stored - set(answer.tree.tied))


def _place(id_: str, source: str) -> str | None:
    """Where from_pretrained finds the weights: the folder itself where a config.json was named."""
    if source != "local":
        return id_
    return id_.removesuffix("config.json").rstrip("/") or "." if id_.endswith("config.json") else id_


def _must_fit(answer: Answer, device: str) -> None:
    """Raises UnsupportedError before anything is downloaded where the base alone is larger than the device's memory."""
    import os

    import torch

    needed = answer.base.loaded.footprint_bytes
    if needed is None:
        return
    if device == "cuda":
        there = torch.cuda.mem_get_info()[0]
    else:
        there = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise UnsupportedError(
            f"the base needs {needed:,} bytes, and {device} has {there:,} free.",
            where=f"--device {device}",
            way_out="--device meta needs no memory, --base-precision nf4 less",
        )


def _on_meta(request: Request, answer: Answer, wanted: Any, folder: str, left_out: list[str]) -> Facts:
    from estimator.jobs import verify_adapter as adapter
    from estimator.jobs import verify_model

    model = verify_model.build_on_meta(wanted, folder)
    before = {**adapter.base_facts(model), "modules": adapter.module_facts(model)}
    parameters = sum(p.numel() for p in model.parameters())
    facts = _adapted_facts(request, answer, model, on_meta=True)
    facts.pop("model", None)
    if "tensors" in facts:
        facts["file_bytes"] = adapter.file_bytes_on_meta(facts["tensors"])
    if _is_quantised(answer, wanted.load):
        left_out.append("bytes and counts of the quantised base: --device cpu or cuda loads it")
        before = {name: before[name] for name in ("architecture", "modules", "tied")}
        facts.pop("all_parameters", None)
    return Facts(base_parameters=parameters, **before, **facts)


def _with_weights(
    request: Request, answer: Answer, wanted: Any, folder: str, device: str, left_out: list[str], train_step: bool
) -> tuple[Facts, dict[str, int]]:
    import torch

    from estimator.jobs import verify_adapter as adapter
    from estimator.jobs import verify_model

    measured: dict[str, int] = {}
    model = verify_model.load(wanted, folder, device)
    model.name_or_path = folder
    before = adapter.base_facts(model)
    if _is_quantised(answer, wanted.load):
        before["converted"] = adapter.converted_modules(model)
        left_out.append("shapes of single modules: --device meta compares them")
    else:
        before["modules"] = adapter.module_facts(model)
        before["base_parameters"] = sum(p.numel() for p in model.parameters())
    if device == "cuda":
        measured["allocated after loading"] = torch.cuda.memory_allocated()
    if wanted.load.prepare_kbit:
        import peft

        model = peft.prepare_model_for_kbit_training(model)
        before |= adapter.base_facts(model)
    facts = _adapted_facts(request, answer, model, on_meta=False)
    adapted = facts.pop("model", None)
    if device == "cuda":
        measured["allocated with the adapter"] = torch.cuda.memory_allocated()
    if train_step and adapted is not None:
        from estimator.jobs.verify_step import BATCH, TOKENS
        from estimator.jobs.verify_step import train_step as step

        try:
            measured |= step(adapted, device)
            left_out.append(f"the step's peak, {BATCH} x {TOKENS} tokens: `lora-size plan` says what to expect")
        except UnsupportedError as error:
            left_out.append(error.what)
    return Facts(**before, **facts), measured


def _adapted_facts(request: Request, answer: Answer, model: Any, *, on_meta: bool) -> dict[str, Any]:
    """What can be read once the adapter is on; PEFT's refusal alone where it refuses."""
    from estimator.jobs import verify_adapter as adapter

    save_embedding_layers = request.save_embedding_layers or "auto"
    rows = vocab_size(request)
    try:
        if rows is not None:
            model.resize_token_embeddings(rows, mean_resizing=False)
        adapted = adapter.put_on(model, answer.adaptation.config, _adapter_dtype(request), on_meta)
        trainable, total = adapted.get_nb_trainable_parameters()
        facts: dict[str, Any] = {
            "model": adapted,
            "adapted": adapter.adapted_modules(adapted),
            "trainable": trainable,
            "all_parameters": total,
        }
        if answer.file_bytes is None:
            return facts
        if on_meta:
            return facts | {"tensors": adapter.file_tensors(adapted, save_embedding_layers)}
        tensors, size = adapter.saved_file(adapted, save_embedding_layers)
        return facts | {"tensors": tensors, "file_bytes": size}
    except (ValueError, TypeError, NotImplementedError, KeyError, AttributeError, RuntimeError) as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        return {"refusal": f"{type(error).__name__}: {text[:300]}"}


def _adapter_dtype(request: Request) -> str | None:
    from estimator.dtypes import FROM_TORCH

    return FROM_TORCH.get(request.adapter_dtype or "", request.adapter_dtype)


def _is_quantised(answer: Answer, load: LoadOptions) -> bool:
    return load.base_precision in BITSANDBYTES or bool(answer.tree.config.get("quantization_config"))


def _comparable(estimate: Facts, device: str, left_out: list[str]) -> Facts:
    if device == "meta" and estimate.footprint is None:
        left_out.append("bytes of the base: the dtype in which it is stored is not known")
    return estimate


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _quiet() -> None:
    """The libraries' own warnings would stand between our lines."""
    import warnings

    import transformers

    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
