"""Notes where PEFT is silent, or says no more than a warning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from estimator.dtypes import BITS
from estimator.lora.closest import closest, last_parts, listed
from estimator.lora.experts import expert_notes
from estimator.lora.index import TreeIndex, suffixes_of
from estimator.lora.inject import Injection, Prepared
from estimator.lora.match import EMBEDDING_LAYER_NAMES, excluded_modules, layer_numbers
from estimator.lora.tensors import SavedTensor
from estimator.lora.ties import saves_depend_on_order, targets_depend_on_order
from estimator.notes import Note
from estimator.request.lora_config import LoraConfig

_SHOWN = 12
_CHECKED = 1_000  # names of a list that are looked up one by one
_PREPARED = {
    "corda": "preprocess_corda with data",
    "eva": "initialize_lora_eva_weights with data, which may move ranks",
    "lora_ga": "preprocess_loraga with data; it fails on a quantised base",
}


def remarks(
    asked: LoraConfig,
    request: Prepared,
    injection: Injection,
    trained: int,
    tensors: Sequence[SavedTensor],
    save_error: str | None,
) -> tuple[Note, ...]:
    """What the reader must know beside the numbers. `asked` is the config as it was given."""
    notes = [
        *_unmatched_targets(asked, request),
        *_unmatched_parameters(asked, injection),
        *_unmatched_saves(asked, request),
        *_by_chance(asked, request),
        *_unmatched_patterns(injection),
        *_unmatched_blocks(asked, injection),
        *_unmatched_exclusions(asked, request),
        *_unmatched_layers(asked, request),
        *expert_notes(asked, request, injection, trained),
        *_embeddings(tensors),
        *_initialisation(asked),
        *_too_wide_for_gradients(asked, injection),
        *_tokens_from_the_end(asked),
        *_inference(asked),
        *_qalora(asked, request, injection),
        *_unknown(asked),
    ]
    if save_error is not None:
        notes.append(Note("saving_fails", f"PEFT trains this but cannot save it: {save_error}"))
    return tuple(notes)


def _by_chance(asked: LoraConfig, request: Prepared) -> list[Note]:
    if not asked.ensure_weight_tying:
        return []
    if saves_depend_on_order(request.index, asked):
        names, otherwise = "modules_to_save", "saves other modules or ends in an AttributeError"
    elif targets_depend_on_order(request.index, asked):
        names, otherwise = "target_modules", "adapts other modules, or saves the embeddings along or not"
    else:
        return []
    message = (
        f"Python's hash seed decides what ensure_weight_tying leaves of {names} here: with another one PEFT "
        f"{otherwise}. Set PYTHONHASHSEED, or leave ensure_weight_tying out."
    )
    return [Note("depends_on_hash_seed", message)]


def _unmatched_targets(asked: LoraConfig, request: Prepared) -> list[Note]:
    targets = asked.target_modules
    if targets is None or isinstance(targets, str):
        return []
    there = request.index.with_suffixes(targets)
    kept = set(request.config.target_modules or ()) if not isinstance(request.config.target_modules, str) else set()
    missing = [name for name in dict.fromkeys(targets) if not there[name] and (name in kept or len(kept) >= 20)]
    if not missing:
        return []
    close = _near(request.index, missing)
    message = f"{len(missing):,} of {len(set(targets)):,} names in target_modules match no module: "
    return [Note("targets_not_found", f"{message}{listed(missing, _SHOWN)}.{close}")]


def _near(index: TreeIndex, names: Sequence[str]) -> str:
    close = [name for name in closest(names, last_parts(index.modules)) if name not in names]
    return f" This model has {listed(close)}." if close else ""


def _unmatched_parameters(asked: LoraConfig, injection: Injection) -> list[Note]:
    if not asked.target_parameters:
        return []
    ends = {end for key in injection.parameters for end in suffixes_of(key)}
    missing = [name for name in dict.fromkeys(asked.target_parameters) if name not in ends]
    if not missing:
        return []
    message = f"Names in target_parameters that match no parameter: {listed(missing, _SHOWN)}."
    return [Note("parameters_not_found", message)]


def _unmatched_saves(asked: LoraConfig, request: Prepared) -> list[Note]:
    """_set_trainable passes over names that no module ends with."""
    names = list(dict.fromkeys(asked.modules_to_save or ()))[:_CHECKED]
    missing = [name for name in names if not any(module.endswith(name) for module in request.index.modules)]
    if not missing:
        return []
    message = f"modules_to_save names what no module is called: {listed(missing, _SHOWN)}."
    return [Note("saved_modules_not_found", message + _near(request.index, missing))]


def _unmatched_patterns(injection: Injection) -> list[Note]:
    if not injection.unmatched_patterns:
        return []
    said = listed(injection.unmatched_patterns, _SHOWN)
    return [Note("patterns_not_found", f"These keys match no adapted module and decide nothing: {said}.")]


def _unmatched_blocks(asked: LoraConfig, injection: Injection) -> list[Note]:
    """BdLoraConfig takes a name wherever it stands inside an adapted module's."""
    given = asked.use_bdlora if isinstance(asked.use_bdlora, Mapping) else {}
    names = [name for field in ("target_modules_bd_a", "target_modules_bd_b") for name in given.get(field) or ()]
    missing = [name for name in names[:_CHECKED] if not any(name in layer.module for layer in injection.layers)]
    if not missing:
        return []
    message = f"use_bdlora names what is in no adapted module's name: {listed(missing, _SHOWN)}."
    return [Note("blocks_not_found", message)]


def _unmatched_exclusions(asked: LoraConfig, request: Prepared) -> list[Note]:
    given = asked.exclude_modules
    if not given:
        return []
    config = request.config
    if isinstance(given, str):
        alone = LoraConfig(exclude_modules=given)
        missing = [] if excluded_modules(request.index, alone) else [given]
    else:
        missing = [name for name, found in request.index.with_suffixes(given).items() if not found]
    if not missing:
        return []
    near = "" if isinstance(config.exclude_modules, str) else _near(request.index, missing)
    return [Note("exclusions_not_found", f"exclude_modules excludes nothing by {listed(missing, _SHOWN)}.{near}")]


def _unmatched_layers(asked: LoraConfig, request: Prepared) -> list[Note]:
    """Numbers in layers_to_transform that no module's name has in the place where PEFT looks."""
    layers = asked.layers_to_transform
    if layers is None:
        return []
    wanted = [layers] if isinstance(layers, int) else list(dict.fromkeys(layers))
    there = layer_numbers(request.index.modules, asked.layers_pattern)
    missing = [number for number in wanted if number not in there]
    if not missing:
        return []
    has = f"the model's layers are {min(there)} to {max(there)}" if there else "the model has no numbered layers"
    said = listed(map(str, missing), _SHOWN)
    return [Note("layers_not_found", f"layers_to_transform names layers that are not there: {said}; {has}.")]


def _embeddings(tensors: Sequence[SavedTensor]) -> list[Note]:
    kept = [tensor for tensor in tensors if tensor.part == "embeddings"]
    if not kept:
        return []
    size = sum(prod(tensor.shape) * BITS[tensor.dtype] // 8 for tensor in kept)
    number = "1 tensor" if len(kept) == 1 else f"{len(kept)} tensors"
    return [
        Note(
            "embeddings_saved",
            f"PEFT saves the embeddings along: {number}, {size:,} bytes of the file. It does so where "
            f"{' or '.join(EMBEDDING_LAYER_NAMES)} is targeted by name or the vocabulary's size has changed; "
            "save_embedding_layers=no leaves them out.",
        )
    ]


def _initialisation(asked: LoraConfig) -> list[Note]:
    first = next((step for name, step in _PREPARED.items() if str(asked.init_lora_weights).startswith(name)), None)
    if first is None:
        return []
    return [Note("init_needs_data", f"init_lora_weights={asked.init_lora_weights} needs {first}.")]


def _too_wide_for_gradients(asked: LoraConfig, injection: Injection) -> list[Note]:
    """LoraLayer.lora_ga_init with gradients takes 2 r directions, and a weight has no more than its smaller side."""
    if asked.init_lora_weights != "lora_ga":
        return []
    linear = [layer for layer in injection.layers if layer.kind in ("Linear", "Conv1D")]
    narrow = [layer.module for layer in linear if 2 * layer.rank > min(layer.in_features, layer.out_features)]
    if not narrow:
        return []
    given = asked.lora_ga_config or {}
    if given.get("direction", "ArB2r") == "ArBr":
        then = "lora_ga_init keeps half of that side's rows there: fewer parameters than are counted"
    else:
        then = "lora_ga_init fails there"
    message = f"2 r is above a side of {len(narrow):,} weights ({listed(narrow, 3)}): with gradients, {then}."
    return [Note("lora_ga_too_wide", message)]


def _tokens_from_the_end(asked: LoraConfig) -> list[Note]:
    """PEFT 0.21.2 reads a row from the end, and TrainableTokensLayer's index_copy does not write one there."""
    given = asked.trainable_token_indices
    lists = given.values() if isinstance(given, Mapping) else [given or ()]
    negative = list(dict.fromkeys(str(token) for tokens in lists for token in tokens if token < 0))
    if not negative:
        return []
    message = f"token ids below 0 ({listed(negative, 3)}): PEFT counts and saves them, its first forward pass fails."
    return [Note("negative_tokens", message)]


def _inference(asked: LoraConfig) -> list[Note]:
    """set_adapter(inference_mode=True); get_nb_trainable_parameters() is 0 then."""
    if not asked.inference_mode:
        return []
    message = "inference_mode is true, as save_pretrained writes it, and PEFT trains nothing with it: what is counted "
    return [Note("inference_mode", message + "trains where it is false (is_trainable=True on loading).")]


def _qalora(asked: LoraConfig, request: Prepared, injection: Injection) -> list[Note]:
    quantised = request.index.tree.quantised
    gptq = any(quantised[layer.module].scheme == "gptq" for layer in injection.layers if layer.module in quantised)
    if not asked.use_qalora or gptq:
        return []
    return [Note("qalora_ignored", "use_qalora acts on GPTQ layers alone, and none is adapted: this is plain LoRA.")]


def _unknown(asked: LoraConfig) -> list[Note]:
    if not asked.unknown or asked.peft_type == "ADALORA":
        return []
    names = ", ".join(sorted(map(str, asked.unknown)))[:200]
    return [Note("unknown_fields", f"PEFT 0.21.2 does not know these fields and ignores them: {names}.")]
