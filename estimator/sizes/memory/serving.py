"""Memory of serving adapters beside a base: as vLLM sets it aside, and as PEFT holds it. Bytes on each GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

from estimator.sizes.memory.kv_cache import KvCache
from estimator.sizes.memory.peak import CONTEXT_BYTES, WORKSPACE_BYTES, Bounds, Component, Memory
from estimator.sizes.memory.shape import Shape
from estimator.sizes.memory.vllm import GPU_MEMORY_UTILIZATION, Elements

# vLLM fills a step with so many tokens, and samples for so many sequences, when it measures what a step needs:
# defaults differ by GPU and entry point.
_STEP_TOKENS = (2048, 16_384)
_SEQUENCES = (256, 1024)
_GRAPHS = (0, 500 * 10**6, 3 * 10**9)  # CUDA graphs; none with enforce_eager
_COMMUNICATION = (200 * 10**6, 500 * 10**6, 1500 * 10**6)  # NCCL and its peers, with several GPUs


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A base and its adapters in a server, as far as memory depends on them."""

    weight_bytes: int  # of the base, all GPUs together
    width: int  # bytes of an element of what is computed, and of the cache
    stacked: Elements  # of vLLM's LoRA stacks
    adapters: int
    max_lora_rank: int
    batch_size: int  # sequences at a time
    sequence_length: int
    encoder_length: int  # positions that an encoder makes of what a decoder looks at
    gpus: int
    packs_chosen_by: bool = True  # keys by which sparse attention chooses are float8, a float32 for each 128


def cache_bytes_per_token(cache: KvCache | None, served: Served) -> int:
    """Bytes for a token of one sequence; what sparse attention chooses by is whole on each GPU.

    vllm 0.33.0, models/deepseek_v2.py, Indexer; transformers 5.23.0 keeps it in the model's dtype.
    """
    if cache is None:
        return 0
    packed = sum(width + width // 128 * 4 for width in cache.chosen_by)
    beside = packed if served.packs_chosen_by else served.width * sum(cache.chosen_by)
    return cache.elements(served.gpus) * served.width + beside


def cached_bytes(cache: KvCache | None, served: Served) -> tuple[int, int]:
    """Of all sequences at their full length: with every window honoured, and without."""
    whole = served.batch_size * served.sequence_length * cache_bytes_per_token(cache, served)
    if cache is None:
        return whole, whole
    whole += served.batch_size * served.encoder_length * -(-cache.encoded // served.gpus) * served.width
    if cache.window is None:
        return whole, whole
    beyond = max(served.sequence_length - cache.window, 0)
    return whole - served.batch_size * beyond * cache.elements_windowed(served.gpus) * served.width, whole


def state_bytes(cache: KvCache | None, served: Served) -> tuple[int, int]:
    """Of all sequences, whatever their length: in the model's dtype without what convolutions see; in float32 with it.

    vllm 0.33 (mamba_ssm_cache_dtype) takes the model's dtype where its config names no other; transformers what the
    scan gives.
    """
    if cache is None:
        return 0, 0
    most = 4 * cache.state_elements + served.width * cache.shifted_elements
    whole = served.width * cache.state_elements, most
    lower, upper = (-(-served.batch_size * size // served.gpus) for size in whole)
    return lower, upper


def vllm_memory(shape: Shape, cache: KvCache | None, served: Served, lora_width: int) -> Memory:
    """What has to be there for these sequences; vLLM then takes its whole share of the GPU for more of the cache."""
    least = -(-served.weight_bytes // served.gpus)
    most = least if served.gpus == 1 else least + served.weight_bytes // 10
    per_rank = served.adapters * served.max_lora_rank * lora_width
    stacks = (per_rank * served.stacked.lower, per_rank * served.stacked.upper)
    tokens = cached_bytes(cache, served)
    step, longest = (_step_bytes(shape, served, _STEP_TOKENS[i], _SEQUENCES[i]) for i in (0, 1))
    components = [
        Component("base weights", least, most, "exact" if served.gpus == 1 else "modelled"),
        Component("LoRA stacks", *stacks, "exact" if stacks[0] == stacks[1] else "modelled"),
        Component("KV cache of these sequences", *tokens, "modelled"),
        Component("states of these sequences", *state_bytes(cache, served), "modelled"),
        Component("one step", step, longest, "modelled"),
        Component("CUDA graphs", _GRAPHS[0], _GRAPHS[2], "modelled"),
    ]
    if served.gpus > 1:
        components.append(Component("communication", _COMMUNICATION[0], _COMMUNICATION[2], "modelled"))
    return _memory(components, "serving", cache)


def peft_memory(shape: Shape, cache: KvCache | None, served: Served, footprint: int, adapter_bytes: int) -> Memory:
    """One process without tensor parallelism: the base, every adapter with all its weights, the cache of generate()."""
    tokens = cached_bytes(cache, served)
    whole = served.batch_size * served.sequence_length
    step = (_step_bytes(shape, served, whole, served.batch_size) // 4, 3 * _step_bytes(shape, served, whole, whole))
    components = [
        Component("base weights", footprint, footprint, "exact"),
        Component("adapters", served.adapters * adapter_bytes, served.adapters * adapter_bytes, "exact"),
        Component("KV cache of these sequences", *tokens, "modelled"),
        Component("states of these sequences", *state_bytes(cache, served), "modelled"),
        Component("one step", *step, "modelled"),
        Component("workspaces", 0, WORKSPACE_BYTES, "modelled"),
    ]
    return _memory(components, "prefill", cache)


def _step_bytes(shape: Shape, served: Served, tokens: int, sequences: int) -> int:
    """One layer at a time: residual, query, key, value and the MLP's middle; logits of the last tokens in float32."""
    widest = max((b.query + 2 * b.key_value + 2 * b.inner * b.experts_per_token for b in shape.blocks), default=0)
    layer = served.width * (3 * shape.hidden + -(-widest // served.gpus))
    return tokens * layer + sequences * shape.vocabulary * (4 + served.width)


def _memory(components: list[Component], moment: str, cache: KvCache | None) -> Memory:
    lower = sum(part.lower_bytes for part in components)
    upper = sum(part.upper_bytes for part in components)
    cached = Component("cached and fragmented", 0, upper // 20, "modelled")
    middle = sum((part.lower_bytes + part.upper_bytes) // 2 for part in components)
    context = Component("CUDA context", CONTEXT_BYTES[0], CONTEXT_BYTES[2], "modelled")
    allocated = Bounds(lower, middle, upper)
    reserved = Bounds(lower, int(middle * 1.02), upper + cached.upper_bytes)
    device = Bounds(*(bytes_ + extra for bytes_, extra in zip(reserved, CONTEXT_BYTES, strict=True)))
    return Memory(
        components=tuple(part for part in (*components, cached, context) if part.upper_bytes),
        allocated=allocated,
        reserved=reserved,
        device=device,
        moment=moment,
        unbounded=cache is None,
    )


def tokens_left(memory: Memory, cache: KvCache | None, served: Served, gpu_memory: int) -> tuple[int, int] | None:
    """Tokens of all sequences together that vLLM's share of the GPU holds: lower, upper with every window honoured.

    None without a cache.
    """
    one = replace(served, batch_size=1)
    least, most = cached_bytes(cache, one)
    if not least:
        return None
    own = next(part for part in memory.components if part.name.startswith("KV cache"))
    budget = int(GPU_MEMORY_UTILIZATION * gpu_memory)
    low = max(budget - (memory.device.upper - own.upper_bytes), 0)
    high = max(budget - (memory.device.lower - own.lower_bytes), 0)
    return low * served.sequence_length // most, high * served.sequence_length // least
