"""Serving adapters beside a base: does it fit, how many tokens are left for the cache, what can't be served."""

from dataclasses import dataclass, replace
from math import inf
from typing import Any, NamedTuple

from estimator.dtypes import BITS
from estimator.errors import LoraSizeError, UsageError
from estimator.jobs.planning.disk import disk
from estimator.jobs.planning.largest import MAX_BATCH, MAX_LENGTH, excess, fits, largest_value, likely_fits, positions
from estimator.jobs.planning.memory import added_bytes, trained_of
from estimator.jobs.planning.plan import sized
from estimator.jobs.planning.plan_notes import POSITIONS_UNKNOWN
from estimator.jobs.planning.serve_refusals import refusals
from estimator.notes import Note
from estimator.report.answer import Answer
from estimator.request.request import Request
from estimator.sizes.memory.kv_cache import KvCache, kv_cache
from estimator.sizes.memory.peak import Memory
from estimator.sizes.memory.serving import (
    Served,
    cache_bytes_per_token,
    cached_bytes,
    peft_memory,
    tokens_left,
    vllm_memory,
)
from estimator.sizes.memory.shape import Shape
from estimator.sizes.memory.training import Training
from estimator.sizes.memory.vllm import DEFAULT_RANK, GPU_MEMORY_UTILIZATION, RANKS, stacked_elements


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How adapters are served."""

    adapters: int = 1  # vLLM's max_loras: adapters in one batch
    max_lora_rank: int = DEFAULT_RANK
    batch_size: int = 1  # sequences at a time
    sequence_length: int = 1024
    gpus: int = 1  # tensor parallel


class InPeft(NamedTuple):
    """The same adapters in one process of PEFT."""

    bytes_each: int  # of one adapter
    bytes_per_token: int  # of the cache
    cache_bytes: int  # of these sequences
    memory: Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class ServePlan:
    answer: Answer
    serving: Serving
    memory: Memory  # vLLM's, for these sequences
    peft: InPeft
    gpu_memory: int | None
    fits: str | None
    likely_fits: bool | None
    largest: dict[str, int | None]
    cache: KvCache | None
    bytes_per_token: int  # in vLLM
    tokens: tuple[int, int] | None  # that vLLM's cache holds; None without a GPU or a cache
    refused: tuple[Note, ...]
    disk: dict[str, int | None]
    notes: tuple[Note, ...]


def serve(request: Request, serving: Serving, gpu_memory: int | None = None) -> ServePlan:
    """Raises what an estimate raises; UsageError for a rank that vLLM does not take, and where the base is unknown."""
    if serving.max_lora_rank not in RANKS:
        what, way_out = f"vLLM takes no max_lora_rank {serving.max_lora_rank}.", f"one of {', '.join(map(str, RANKS))}"
        raise UsageError(what, where="--max-lora-rank", way_out=way_out)
    precision_asked = request.base_precision is not None
    request, bases, answer, assumed = sized(request)
    of_training = () if precision_asked else _precision_of_training(request)
    cache, shape = kv_cache(answer.tree), bases.shape(answer.tree)
    held = _served(answer, shape, serving)
    downcast = _downcasts(request, answer)
    served = _as_vllm_loads(answer, held) if downcast else held
    memory = vllm_memory(shape, cache, served, _lora_width(request, served))
    trained = trained_of(answer)
    return ServePlan(
        answer=answer,
        serving=serving,
        memory=memory,
        peft=_in_peft(answer, shape, replace(held, gpus=1, packs_chosen_by=False), cache),
        gpu_memory=gpu_memory,
        fits=None if gpu_memory is None else fits(memory, _share(gpu_memory)),
        likely_fits=None if gpu_memory is None else likely_fits(memory, _share(gpu_memory)),
        largest=_largest(request, answer, shape, cache, serving, gpu_memory),
        cache=cache,
        bytes_per_token=cache_bytes_per_token(cache, served),
        tokens=None if gpu_memory is None else tokens_left(memory, cache, served, gpu_memory),
        refused=refusals(answer, serving.max_lora_rank, serving.gpus),
        disk=disk(answer, Training(), trained, None) | {"checkpoint_bytes": None},
        notes=(*assumed, *of_training, *([_DOWNCAST] if downcast else ()), *_notes(answer, cache, held, gpu_memory)),
    )


def _precision_of_training(request: Request) -> tuple[Note, ...]:
    """A word where --config alone says how the base is loaded: that is how the trainer did."""
    if request.base_precision in (None, "stored"):
        return ()
    message = (
        f"{request.config} trains on a base in {request.base_precision}, and it is counted as served in that as well; "
        "--base-precision stored serves it as it is saved."
    )
    return (Note("base_precision_from_config", message),)


def _in_peft(answer: Answer, shape: Shape, served: Served, cache: KvCache | None) -> InPeft:
    loaded = answer.base.loaded
    each = added_bytes(answer)
    base = (loaded.footprint_bytes or 0) + (loaded.state_bytes or 0)
    return InPeft(
        bytes_each=each,
        bytes_per_token=cache_bytes_per_token(cache, served),
        cache_bytes=cached_bytes(cache, served)[1],
        memory=peft_memory(shape, cache, served, base, each),
    )


def _share(gpu_memory: int) -> int:
    """Bytes that vLLM takes of it by default."""
    return int(GPU_MEMORY_UTILIZATION * gpu_memory)


def _served(answer: Answer, shape: Shape, serving: Serving) -> Served:
    loaded = answer.base.loaded
    towers = tuple(shape.towers.values())
    return Served(
        weight_bytes=loaded.weight_bytes or 0,
        width=_width(loaded.dtype),
        stacked=stacked_elements(answer.tree, serving.gpus),
        adapters=serving.adapters,
        max_lora_rank=serving.max_lora_rank,
        batch_size=serving.batch_size,
        sequence_length=serving.sequence_length,
        encoder_length=(towers[0].pieces if len(towers) == 1 else None) or serving.sequence_length,
        gpus=serving.gpus,
    )


_DOWNCAST = Note(
    "downcast", "vLLM serves a checkpoint of float32 in 16 bits unless it is told otherwise; --dtype fp32 counts that."
)


def _downcasts(request: Request, answer: Answer) -> bool:
    """vllm/config/model.py, _resolve_auto_dtype."""
    return answer.base.loaded.dtype == "F32" and request.base_precision in (None, "stored") and request.dtype != "fp32"


def _as_vllm_loads(answer: Answer, held: Served) -> Served:
    return replace(held, weight_bytes=answer.base.bytes.get("bf16") or held.weight_bytes, width=2)


def _width(dtype: str | None) -> int:
    """Packed and 8-bit checkpoints compute in 16 bits."""
    return max(BITS[dtype or "BF16"] // 8, 2)


def _lora_width(request: Request, served: Served) -> int:
    """lora_dtype: the model's own unless it is said."""
    return {"bf16": 2, "fp16": 2, "fp32": 4}.get(request.adapter_dtype or "", served.width)


def _largest(
    request: Request, answer: Answer, shape: Shape, cache: KvCache | None, serving: Serving, gpu_memory: int | None
) -> dict[str, int | None]:
    """Sequences, tokens of each, and max_lora_rank that surely fit, the rest held; None without a GPU or a cache."""
    if gpu_memory is None or cache is None:
        return {"batch_size": None, "sequence_length": None, "r": None}

    def over(**changes: Any) -> float:
        try:
            served = _served(answer, shape, replace(serving, **changes))
            served = _as_vllm_loads(answer, served) if _downcasts(request, answer) else served
            return excess(vllm_memory(shape, cache, served, _lora_width(request, served)), _share(gpu_memory))
        except LoraSizeError:
            return inf

    ranks = [rank for rank in RANKS if over(max_lora_rank=rank) <= 0]
    longest = positions(answer) or MAX_LENGTH
    return {
        "batch_size": largest_value(lambda n: over(batch_size=n), MAX_BATCH),
        "sequence_length": largest_value(lambda n: over(sequence_length=n), longest),
        "r": max(ranks, default=None),
    }


def _notes(answer: Answer, cache: KvCache | None, held: Served, gpu_memory: int | None) -> tuple[Note, ...]:
    if cache is None:
        return (Note("no_kv_cache", "How this model caches keys and values is not known; no cache is counted here."),)
    if not cache.kept and not cache.states:
        message = "This class keeps no keys and values: for each token that it makes, it reads all others again."
        return (Note("keeps_no_cache", message),)
    notes = [POSITIONS_UNKNOWN] if gpu_memory is not None and positions(answer) is None else []
    if cache.windowed_layers:
        message = f"{cache.windowed_layers} of {cache.layers} layers keep {cache.window:,} tokens at most."
        notes.append(Note("sliding_window", message if cache.window else message.replace(" None", " few")))
    if cache.encoded:
        message = (
            f"The cache holds keys and values of {held.encoder_length:,} positions of the encoder for each sequence, "
            f"{cache.encoded * held.width:,} bytes for each, beside those of the tokens that the decoder makes."
        )
        notes.append(Note("encoder_cached", message))
    if cache.uncounted:
        message = f"{cache.uncounted} layers keep a state for each sequence in place of keys and values: not counted."
        notes.append(Note("states_not_counted", message))
    return tuple(notes)
