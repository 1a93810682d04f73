"""What a step of verl holds on each GPU: its examples, their length, and over how many GPUs FSDP cuts the model.

verl 0.7.0: workers/fsdp_workers.py and actor/dp_actor.py; trainer/sft_trainer.py; trainer/config.
"""

from __future__ import annotations

from typing import NamedTuple

from estimator.notes import Note
from estimator.request.trainers.keys import OPEN, Keys
from estimator.request.trainers.run_settings import EVERYTHING, filled_batch, offload_note, tokens_note

_PROMPTS = {"max_prompt_length": 512, "max_response_length": 512}
_ACTOR = {"ppo_mini_batch_size": 256, "ppo_max_token_len_per_gpu": 16384}
_TUNED = {"micro_batch_size_per_gpu": 4, "max_length": 1024, "train_batch_size": 256}
_ENGINE = {**_TUNED, "use_dynamic_bsz": True, "max_token_len_per_gpu": 8192}
_MACHINES = {"nnodes": 1, "n_gpus_per_node": 8}


class Step(NamedTuple):
    batch_size: int | None
    length: int | None
    gpus: int | None
    offloads: frozenset[str]
    defaulted: tuple[str, ...]
    notes: tuple[Note, ...]


def step_of(keys: Keys, parts: Keys, sharding: Keys, *, engine: bool) -> Step:
    """parts: `actor_rollout_ref`, empty where verl tunes; engine: by sft_trainer, not the older fsdp_sft_trainer."""
    tunes = not parts.values
    actor = Keys(parts.section("actor"), keys.where, _ACTOR)
    data = Keys(keys.section("data"), keys.where, (_ENGINE if engine else _TUNED) if tunes else _PROMPTS)
    own = sharding.values if engine else keys.values if tunes else actor.values
    ulysses = Keys(own, keys.where, {}).integer("ulysses_sequence_parallel_size") or 1
    length = data.integer("max_length") if tunes else _length(data)
    machines = Keys(keys.section("trainer"), keys.where, {} if tunes else _MACHINES)
    gpus = _gpus(keys, machines, tunes=tunes)
    groups = max(1, (gpus or 1) // ulysses)
    said, limit_key = (data, "max_token_len_per_gpu") if tunes else (actor, "ppo_max_token_len_per_gpu")
    notes = []
    if (not tunes or engine) and _on(said, "use_dynamic_bsz"):
        limit = said.integer(limit_key)
        most = data.integer("train_batch_size") if tunes else _mini(actor, parts)
        batch = filled_batch(limit, length, most and max(1, most // groups))
        notes += [tokens_note(limit, length, batch)] if limit and length and batch else []
        notes += _padded(keys, parts, data, tunes=tunes)
    else:
        batch = said.integer("micro_batch_size_per_gpu") if tunes else _micro(actor, groups)
        if ulysses > 1:
            message = f"ulysses_sequence_parallel_size cuts each example over {ulysses} GPUs: they are planned whole."
            notes.append(Note("sequence_parallel", message))
    within, told = _cut(sharding, gpus)
    away, moved = _offloads(sharding)
    notes += [*told, *moved]
    read = (data, actor, machines, sharding)
    defaulted = tuple(key for one in read for key in one.defaulted)
    return Step(batch, length, within, away, defaulted, (*notes, *(note for one in read for note in one.notes)))


def _length(data: Keys) -> int | None:
    prompt, response = data.integer("max_prompt_length"), data.integer("max_response_length")
    return None if prompt is None or response is None else prompt + response


def _gpus(keys: Keys, machines: Keys, *, tunes: bool) -> int | None:
    """Of all machines: as torchrun is told, else as Ray is."""
    program = str(keys.values.get("_program") or "")
    if tunes and program and not program.endswith("_ray"):
        return keys.values.get("_world")
    each = machines.integer("n_gpus_per_node")
    nodes = machines.integer("nnodes") if "nnodes" in machines.values or not tunes else 1
    return each * nodes if each and nodes else None


def _mini(actor: Keys, parts: Keys) -> int | None:
    """Examples of a step on all GPUs: the prompts, each answered `rollout.n` times."""
    prompts = actor.integer("ppo_mini_batch_size")
    answers = Keys(parts.section("rollout"), parts.where, {"n": 1}).integer("n")
    return prompts * answers if prompts and answers else None


def _micro(actor: Keys, groups: int) -> int | None:
    """The older ppo_micro_batch_size counts the examples of all GPUs."""
    every = actor.integer("ppo_micro_batch_size")
    return max(1, every // groups) if every else actor.integer("ppo_micro_batch_size_per_gpu")


def _padded(keys: Keys, parts: Keys, data: Keys, *, tunes: bool) -> list[Note]:
    model = Keys((keys if tunes else parts).section("model"), keys.where, {"use_remove_padding": True})
    if _on(model, "use_remove_padding"):
        return []
    message = "without use_remove_padding each is padded to the greatest length: a micro-batch may hold more tokens."
    return [Note("padded", f"The limit counts the tokens of the examples; {message}")]


def _cut(sharding: Keys, gpus: int | None) -> tuple[int | None, list[Note]]:
    """create_device_mesh: groups of fsdp_size GPUs hold a copy each."""
    size = sharding.integer("fsdp_size")
    if size is None or size <= 0 or gpus is None or size >= gpus:
        return gpus, []
    message = f"fsdp_size cuts the model over {size} of {gpus} GPUs: {size} are planned, which hold as much as all."
    return size, [Note("fsdp_size", message)]


def _offloads(sharding: Keys) -> tuple[frozenset[str], list[Note]]:
    moved = [key for key in ("param_offload", "optimizer_offload") if _on(sharding, key)]
    away = [key for key in ("offload_policy", "cpu_offload") if _on(sharding, key)]
    if away:
        return EVERYTHING, [offload_note(away[0], EVERYTHING)]
    message = f"What {' and '.join(moved)} put on the CPU lies on the GPU while a step runs, as planned."
    return frozenset(), [Note("offloaded", message)] if moved else []


def _on(keys: Keys, key: str) -> bool:
    """A switch that changes no count: one that only the run knows is off, with a note."""
    value = keys.values.get(key)
    if isinstance(value, str) and OPEN.fullmatch(value):
        keys.note("not_known", f"{key} is {value[:60]!r}: planned without it.")
        return False
    return keys.flag(key)
