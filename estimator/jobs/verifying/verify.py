"""Proof on the real thing: the model as its user would have it, PEFT's adapter on it, and every promise compared."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import metadata

from estimator.architecture.facts import newer_release
from estimator.checkpoint.header import parse_header
from estimator.errors import UnsupportedError, UsageError
from estimator.jobs.estimate import load_options, vocab_size, with_config_file
from estimator.jobs.planning.largest import positions
from estimator.jobs.planning.memory import memory_of
from estimator.jobs.planning.training import training_from
from estimator.jobs.verifying.facts import compare, promised
from estimator.jobs.verifying.model import BITSANDBYTES, Wanted, config_folder
from estimator.jobs.verifying.step import PEAK
from estimator.report.answer import Answer
from estimator.report.verify_result import Comparison, Verification
from estimator.request.load_options import LoadOptions
from estimator.request.lora_config import class_wanted
from estimator.request.request import Request
from estimator.sizes.loading import FLOAT_PRECISIONS
from estimator.sizes.memory.training import Training
from estimator.source.progress import patiently

DEVICES = ("meta", "cpu", "cuda")
LIBRARIES = ("lora-size", "torch", "transformers", "peft", "accelerate", "bitsandbytes", "safetensors")

# One step of what no trainer's config plans: short, so that it goes where the model itself goes.
STEP = Training(batch_size=1, sequence_length=512, packing=True)


def verify(
    request: Request,
    answer: Answer,
    *,
    device: str | None = None,
    train_step: bool = False,
    trust_remote_code: bool = False,
) -> Verification:
    """The estimate beside the real model. `device` None: cuda where there is one, else meta.

    Raises UnsupportedError where the libraries are missing, the model can't be built or does not fit, UsageError for
    a device that is none and for a config under which nothing trains.
    """
    asked, request = request, with_config_file(request)
    if request.freezing is not None:
        what = "this trainer freezes or casts what PEFT made: there is no count or file of PEFT's to compare with."
        raise UsageError(what, where="--config", way_out="see the notes of an estimate with this config")
    training = _step(asked, answer)
    load = load_options(request)
    _require(("torch", "transformers", "peft"))
    _require_release(answer.tree.architecture, answer.tree.config.get("model_type"))
    device = _device(device, train_step)
    if device != "meta":
        _require(("accelerate", *(("bitsandbytes",) if load.base_precision in BITSANDBYTES else ())))
        _must_fit(answer, device, training if train_step else None)
        _reachable(request, answer)
    _quiet()
    from estimator.jobs.verifying.real import Run, real_facts

    with config_folder(answer.config) as folder, patiently() as tell:
        run = Run(
            request=request,
            lora=dict(answer.adaptation.config),
            rows=vocab_size(request),
            wanted=_wanted(request, answer, load, trust_remote_code),
            folder=folder,
            device=device,
            quantised=_is_quantised(answer, load),
            saves=answer.file_bytes is not None,
            step=training if train_step else None,
            progress=tell,
        )
        real = real_facts(run)
    comparisons, differences = compare(promised(answer), real)
    return Verification(
        device=device,
        comparisons=(*comparisons, *_peak(answer, training, run.measured)),
        differences=differences,
        left_out=tuple(run.left_out),
        measured=run.measured,
        versions=versions(),
    )


def _step(request: Request, answer: Answer) -> Training:
    """What --config plans, as it is run here: torch's AdamW on one device, every example as long as the longest and
    no longer than the model knows positions. A short step without a file, and for an adapter_config.json."""
    planned, notes = training_from(request.config, {})
    here = replace(planned, packing=True, optimizer="adamw_torch", loss="standard", attention="sdpa", gpus=1)
    step = here if notes else STEP
    longest = positions(answer) or step.sequence_length
    return replace(step, sequence_length=min(step.sequence_length, longest))


def _peak(answer: Answer, training: Training, measured: Mapping[str, int]) -> Iterator[Comparison]:
    """A measured peak beside the bounds of the plan."""
    if PEAK in measured:
        planned = memory_of(answer, training).allocated
        words = f"{planned.lower:,} to {planned.upper:,}"
        yield Comparison(PEAK, words, measured[PEAK], planned.lower <= measured[PEAK] <= planned.upper)


def _require(libraries: Sequence[str]) -> None:
    from importlib.util import find_spec

    if missing := [name for name in libraries if find_spec(name) is None]:
        raise UnsupportedError(
            f"verifying needs {', '.join(missing)}, not installed here.",
            where="--verify",
            way_out="pip install 'lora-size[verify]'",
        )


def _require_release(architecture: str | None, model_type: str | None) -> None:
    """Raises UnsupportedError where the installed transformers is older than the class, or than the model type."""
    needed, installed = newer_release(architecture, model_type), metadata.version("transformers")
    if needed and _numbers(installed) < _numbers(needed):
        raise UnsupportedError(
            f"{architecture} for {model_type} needs transformers {needed}; {installed} is installed here.",
            where="--verify",
            way_out=f"pip install 'transformers>={needed}'",
        )


def _numbers(release: str) -> list[int]:
    return [int(part) for part in release.split(".")[:3] if part.isdigit()]


def _device(device: str | None, train_step: bool) -> str:
    import torch

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "meta"
    if train_step and device == "meta":
        raise UsageError(
            "nothing can be trained on meta.", where="--train-step", way_out="--device cpu or --device cuda"
        )
    if device not in DEVICES:
        raise UsageError(
            f"there is no device {device[:40]!r}.", where="--device", way_out="one of " + ", ".join(DEVICES)
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise UnsupportedError(
            "torch sees no CUDA device here.", where="--device cuda", way_out="--device cpu or --device meta"
        )
    return device


def _wanted(request: Request, answer: Answer, load: LoadOptions, trust_remote_code: bool) -> Wanted:
    found = answer.found
    return Wanted(
        config=answer.config,
        place=None if request.set else _place(found.id, found.source),
        subfolder=request.subfolder or "",
        revision=found.revision if found.source in ("hub", "cache") else None,
        task=class_wanted({**request.lora, "task_type": answer.adaptation.config.get("task_type")}),
        num_labels=request.num_labels,
        dtype=FLOAT_PRECISIONS.get(load.base_precision, load.dtype),
        untied=found.untied,
        kept_apart=_kept_apart(answer),
        load=load,
        trust_remote_code=trust_remote_code,
        token=request.token,
        offline=_is_offline(request),
    )


def _kept_apart(answer: Answer) -> frozenset[str]:
    """Stored names that the estimate ties to nothing; only their values could say otherwise."""
    stored = {name for file in answer.found.files for name in parse_header(file.header, file=file.path).tensors}
    return frozenset(stored - answer.tree.tied.keys())


def _place(id_: str, source: str) -> str | None:
    """Where from_pretrained finds the weights: the folder around a file that it reads; None around any other."""
    if source != "local" or not os.path.isfile(id_):
        return id_
    folder, name = os.path.split(id_)
    return (folder or ".") if name in ("config.json", "model.safetensors") else None


def _must_fit(answer: Answer, device: str, step: Training | None) -> None:
    """Raises UnsupportedError before anything is downloaded where our own plan says that it can't fit: base and
    adapter, and with a step the floor of its peak."""
    if answer.base.loaded.footprint_bytes is None:
        return
    memory = memory_of(answer, step or STEP)
    held = sum(part.lower_bytes for part in memory.components if part.name in ("base weights", "adapter weights"))
    needed = max(held, memory.allocated.lower) if step else held
    there = _free_bytes(device)
    if there is not None and needed > there:
        raise UnsupportedError(
            f"this needs at least {needed:,} bytes, and {device} has {there:,} free.",
            where=f"--device {device}",
            way_out="--device meta needs no memory, --base-precision nf4 less",
        )


def _free_bytes(device: str) -> int | None:
    """What can be allocated; None where the system does not say."""
    if device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _reachable(request: Request, answer: Answer) -> None:
    """Asks the Hub once for a bundled model, so that what is wrong with it is said at once and in our words.

    Raises NetworkError, GatedError, NotFoundError.
    """
    if answer.found.source != "snapshot" or _is_offline(request):
        return
    from estimator.source.find import find

    find(answer.found.id, token=request.token, online=True, timeout=request.timeout)


def _is_offline(request: Request) -> bool:
    from estimator.source.hub_settings import hub_settings

    return request.offline or hub_settings().offline


def _is_quantised(answer: Answer, load: LoadOptions) -> bool:
    return load.base_precision in BITSANDBYTES or bool(answer.tree.config.get("quantization_config"))


def versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _quiet() -> None:
    """The libraries' own warnings would stand between our lines; some are said while they are imported."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    for name in ("bitsandbytes", "huggingface_hub", "torchao"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
