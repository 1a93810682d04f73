"""One adapter on one base: the rooms chained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estimator.architecture.module import ModuleTree
from estimator.dtypes import config_dtype, from_torch
from estimator.errors import NoTargetModulesError, UsageError
from estimator.jobs.base import Base, BaseCache
from estimator.jobs.class_notes import refuse_without_class
from estimator.lora.adapt import Adaptation, adapt
from estimator.lora.target_roles import resolve_targets
from estimator.notes import Note
from estimator.report.answer import Answer
from estimator.request.flags import lora_fields, names_in
from estimator.request.load_options import DTYPES, STORAGES, LoadOptions
from estimator.request.lora_config import class_wanted, from_mapping
from estimator.request.request import Request, flag
from estimator.sizes.adapter_file import adapter_file_bytes
from estimator.sizes.base import BaseSizes, Loaded
from estimator.sizes.cross_check import CrossCheck


def estimate(request: Request, *, bases: BaseCache | None = None) -> Answer:
    """What PEFT would train and save, and what the base weighs. Raises LoraSizeError: every refusal of the contract."""
    request = with_config_file(request)
    bases = bases or BaseCache()
    given = {**request.lora, **lora_fields(request)}
    load = load_options(request)
    base = bases.base(request, class_wanted(given))
    refuse_without_class(base.tree, base.config, request.task and request.task.upper())
    loaded = bases.sizes(base, load)
    try:
        adaptation, target_notes = _adapt(loaded.model, given, request)
    except NoTargetModulesError as error:
        raise _of_damaged_files(error, bases.cross_check(base)[0]) from error
    sizes, size_notes = _honest_sizes(base, loaded, load)
    check, check_notes = bases.cross_check(base)
    return Answer(
        found=base.found,
        config=base.config,
        tree=base.tree,
        adaptation=adaptation,
        base=sizes,
        cross_check=check,
        file_bytes=adapter_file_bytes(adaptation.tensors)[0] if adaptation.has_size else None,
        comparison_bytes=_comparison_bytes(sizes, load),
        notes=(
            *(request.config_notes or ()),
            *base.notes,
            *base.tree.notes,
            *target_notes,
            *adaptation.notes,
            *(note for note in loaded.notes if note.code != "skips_not_found" or request.skip_modules is not None),
            *size_notes,
            *check_notes,
        ),
    )


def _of_damaged_files(error: NoTargetModulesError, check: CrossCheck) -> NoTargetModulesError:
    """The same with a word on files that lack what config.json promises: what is targeted may be among it."""
    if not check.complaints:
        return error
    way_out = f"{error.way_out}; or fetch the model again, which is not whole: {check.complaints[0]}"
    return NoTargetModulesError(error.what, where=error.where, way_out=way_out)


def with_config_file(request: Request) -> Request:
    """The request with what --config says filled in, once, where the request itself says nothing.

    Raises UsageError for a file that can't be read or has no LoRA in it.
    """
    if request.config is None or request.config_notes is not None:
        return request
    from estimator.request.files import read_config_file, to_request

    said = dict(to_request(read_config_file(request.config)))
    if request.model is not None:
        said.pop("revision", None)  # another model's
    lora = {**said.pop("lora", {}), **request.lora}
    empty = {name for name, value in zip(Request._fields, request, strict=True) if value in (None, {})}
    return request._replace(lora=lora, **{name: value for name, value in said.items() if name in empty})


def load_options(request: Request) -> LoadOptions:
    """How the request loads its base; the library's own defaults where it says nothing."""
    skip = names_in(request.trainer_skips if request.skip_modules is None else request.skip_modules)
    return LoadOptions(
        base_precision=request.base_precision or "stored",
        dtype="auto" if request.dtype in (None, "auto") else _dtype(request.dtype, "dtype"),
        double_quant=bool(request.double_quant),
        quant_storage=_dtype(request.quant_storage or "uint8", "quant_storage", STORAGES),
        compute_dtype=_dtype(request.compute_dtype, "compute_dtype") if request.compute_dtype else None,
        skip_modules=None if skip is None else tuple(skip),
        prepare_kbit=bool(request.prepare_kbit),
    )


_BESIDE = {"dtype": "auto", "adapter_dtype": "base"}  # words that stand for no dtype of their own


def _dtype(name: str, option: str, known: Sequence[str] = DTYPES) -> str:
    """safetensors' name of a dtype that may stand there, in torch's spelling or the command line's."""
    dtype = from_torch(name)
    if dtype not in map(from_torch, known):
        way_out = "one of " + ", ".join((*known, *filter(None, [_BESIDE.get(option)])))
        raise UsageError(f"{option} is {name[:60]!r}.", where=flag(option), way_out=way_out)
    return str(dtype)


def _adapt(tree: ModuleTree, given: dict[str, Any], request: Request) -> tuple[Adaptation, tuple[Note, ...]]:
    notes: tuple[Note, ...] = ()
    if request.targets is not None:
        given["target_modules"], notes = resolve_targets(request.targets, tree)
    elif request.target_rule is not None:
        from estimator.lora.trainers.targets import apply_rule

        rule = request.target_rule
        tree, given, notes = apply_rule(rule.name, rule.settings, tree, given)
    adapter_dtype = request.adapter_dtype
    adaptation = adapt(
        tree,
        from_mapping(given),
        adapter_dtype=adapter_dtype if adapter_dtype in (None, "base") else _dtype(adapter_dtype, "adapter_dtype"),
        vocab_size=vocab_size(request),
        save_embedding_layers=request.save_embedding_layers or "auto",
        freezing=request.freezing,
    )
    return adaptation, notes


def vocab_size(request: Request) -> int | None:
    """Rows of the embedding after resizing, given or counted from the tokenizer; None where it stays as it is.

    Raises UsageError where both say it, and what the tokenizer's source raises.
    """
    if request.tokenizer is None:
        return request.vocab_size
    if request.vocab_size is not None:
        what = "--vocab-size and --tokenizer both say how many rows the embedding gets."
        raise UsageError(what, where="--tokenizer", way_out="give one of the two")
    from estimator.source.tokenizer import vocabulary_size

    return vocabulary_size(request.tokenizer, token=request.token, offline=request.offline, timeout=request.timeout)


def _comparison_bytes(sizes: BaseSizes, load: LoadOptions) -> int | None:
    """The base's bytes at --base-precision: the file's own where it is compared as stored and its headers are known."""
    if load.base_precision == "stored" and sizes.checkpoint_bytes is not None:
        return sizes.checkpoint_bytes
    return sizes.loaded.weight_bytes


_DTYPE_UNKNOWN = Note(
    "stored_dtype_unknown",
    "The dtype in which this base is stored is not known without its headers: --online reads them, --dtype says it. "
    "What int8 and nf4 leave unquantised is taken to be bfloat16.",
)


def _honest_sizes(base: Base, sizes: BaseSizes, load: LoadOptions) -> tuple[BaseSizes, tuple[Note, ...]]:
    """Without headers and without a dtype in the config, the base as this request loads it is not claimed."""
    if base.checkpoint is not None or load.dtype != "auto" or config_dtype(base.config) is not None:
        return sizes, ()
    loaded = sizes.loaded
    if load.base_precision not in ("fp32", "bf16", "fp16"):
        loaded = Loaded(precision=loaded.precision)
    return sizes._replace(loaded=loaded), (_DTYPE_UNKNOWN,)
