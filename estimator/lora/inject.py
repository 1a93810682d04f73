"""inject_adapter: the config made ready for the model, then layer by layer.

peft 0.21.2, peft/tuners/tuners_utils.py.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from estimator.architecture.module import Module
from estimator.errors import InvalidLoraError, UnsupportedError
from estimator.lora.adalora import adalora_fields
from estimator.lora.config_rules import check_names, check_rank
from estimator.lora.facts import default_targets, generates
from estimator.lora.index import TreeIndex
from estimator.lora.initialisation import makes_its_own
from estimator.lora.layers import LoraLayer, Settings, lora_layers
from estimator.lora.loaded import loaded, weight_of
from estimator.lora.match import (
    INCLUDE_LINEAR_LAYERS_SHORTHAND,
    all_linear_modules,
    check_keys,
    match_modules,
    minimal_targets,
    ranks,
    unmatched_keys,
)
from estimator.lora.moe import converted
from estimator.lora.parameters import check_alphas, parameter_layers, targeted_parameters
from estimator.lora.ties import is_tied_target, with_ties
from estimator.lora.variants import OWN_LAYERS
from estimator.request.lora_config import LoraConfig

_TASK_HEADS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}


class Prepared(NamedTuple):
    """The request in the form in which PEFT matches it."""

    index: TreeIndex  # type: ignore[assignment]  # nobody asks a tuple's own index() of it
    config: LoraConfig
    later_saves: tuple[str, ...]  # modules_to_save that the task adds once LoRA is in place
    tied_saves: tuple[str, ...]
    tied_targets: tuple[str, ...]


class Injection(NamedTuple):
    """What inject_adapter puts in."""

    layers: list[LoraLayer]
    parameters: tuple[str, ...]  # targeted by target_parameters
    unmatched_patterns: tuple[str, ...]  # "rank_pattern: q_proj"


def prepared(index: TreeIndex, config: LoraConfig) -> Prepared:
    """The config as inject_adapter leaves it before it matches. Raises InvalidLoraError."""
    check_names(config.modules_to_save, "modules_to_save")
    check_names(config.target_parameters, "target_parameters")
    if config.bias not in ("none", "all") and not config.bias.endswith("_only"):
        raise InvalidLoraError(
            f"there is no bias {config.bias[:40]!r}.", where="bias", way_out="none, all or lora_only"
        )
    _refuse_task(index, config.task_type)
    heads = _TASK_HEADS.get(config.task_type or "", ())
    if config.task_type == "SEQ_CLS":
        config, heads = config._replace(modules_to_save=(*(config.modules_to_save or ()), *heads)), ()
    config = converted(index, config)
    config, tied_saves, tied_targets = with_ties(index, config)
    config = _with_default_targets(index, config)
    if config.layer_replication:
        from estimator.lora.replicate import replicated  # here and below: only what a request needs is imported

        layers = tuple(map(tuple, config.layer_replication))
        source = index
        index = source.remembered(("replicated", layers), lambda: TreeIndex(replicated(source, layers)))
    targets = config.target_modules
    if isinstance(targets, str) and targets.lower() == INCLUDE_LINEAR_LAYERS_SHORTHAND:
        targets = frozenset(all_linear_modules(index, config.task_type))
    if targets is not None and not isinstance(targets, str):
        targets = minimal_targets(index, targets)
    config = config._replace(target_modules=targets)
    return Prepared(index=index, config=config, later_saves=heads, tied_saves=tied_saves, tied_targets=tied_targets)


def _refuse_task(index: TreeIndex, task: str | None) -> None:
    """PeftModelForCausalLM and PeftModelForSeq2SeqLM take prepare_inputs_for_generation of the model's class."""
    cls = index.tree.architecture
    if task in ("CAUSAL_LM", "SEQ_2_SEQ_LM") and cls and index.tree.basis == "exact" and not generates(cls):
        raise InvalidLoraError(
            f"task_type {task} is for models that generate; on {cls} PEFT ends in an AttributeError of its own.",
            where="task_type",
            way_out="leave task_type out, or give the one that the model is for",
        )


def _with_default_targets(index: TreeIndex, config: LoraConfig) -> LoraConfig:
    """LoraModel._prepare_adapter_config."""
    if config.target_modules is not None:
        return config
    model_type = index.tree.config.get("model_type")
    targets = default_targets(config.peft_type).get(str(model_type))
    if targets is None and not config.target_parameters:
        which = "a model without a model_type" if model_type is None else f"the model type {str(model_type)[:60]!r}"
        raise InvalidLoraError(
            f"PEFT has no default target_modules for {which}.",
            where="target_modules",
            way_out="name them, or say all-linear",
        )
    return config._replace(target_modules=targets if isinstance(targets, str) or targets is None else tuple(targets))


def injected(request: Prepared) -> Injection:
    """The layers that PEFT puts in. Raises NoTargetModulesError, UnsupportedModuleError, InvalidLoraError."""
    index, config = request.index, request.config
    matched = match_modules(index, config)
    names: Sequence[str] = matched.targeted
    if request.tied_targets:
        tied = [name for name in index.modules if is_tied_target(name, request.tied_targets)]
        names = [*(name for name in names if name not in tied), *tied]
    layers = _module_layers(index, config, names)
    layers = _with_tied_weights(index, config, layers, request.tied_targets)
    parameters = targeted_parameters(index, config)
    if parameters:
        layers = [*layers, *parameter_layers(index, config, parameters, {layer.module for layer in layers}, layers)]
    if not names and not parameters:
        from estimator.lora.refuse import refuse_nothing_matched

        refuse_nothing_matched(index, config, matched)
    keys = tuple(key for key, _, _ in parameters)
    return Injection(
        layers=_inside_wrappers(layers),
        parameters=keys,
        unmatched_patterns=_unmatched_patterns(config, names, keys),
    )


def _with_tied_weights(
    index: TreeIndex, config: LoraConfig, layers: list[LoraLayer], tied: Sequence[str]
) -> list[LoraLayer]:
    """ensure_weight_tying: the head's matrices are the embedding's own turned, whatever rank the head would have.

    peft 0.21.2: `tied_adapter` in LoraModel._create_and_replace and LoraLayer.update_layer; a module is known by the
    last part of its name there, so a head below the top level is adapted by itself. Raises InvalidLoraError where the
    embedding is not adapted.
    """
    heads = {layer.module for layer in layers if layer.module.rpartition(".")[2] in tied}
    if not heads:
        return layers
    source = next((layer for layer in layers if layer.module == index.tree.input_embedding), None)
    if source is None or source.kind != "Embedding":
        raise InvalidLoraError(
            f"ensure_weight_tying ties {sorted(heads)[0]} to the input embedding, which is not adapted; PEFT ends in "
            "an AttributeError of its own.",
            where="ensure_weight_tying",
            way_out="leave it out, or target the input embedding as well",
        )
    if makes_its_own(config.init_lora_weights):
        return layers
    return [_turned(layer, source) if layer.module in heads else layer for layer in layers]


def _turned(layer: LoraLayer, source: LoraLayer) -> LoraLayer:
    """With the embedding's matrices, however many rows a head of the same last name has itself."""
    rank = source.rank
    shapes = {"lora_A.weight": (rank, source.out_features), "lora_B.weight": (source.in_features, rank)}
    return layer._replace(weights=tuple(w._replace(shape=shapes.get(w.suffix, w.shape)) for w in layer.weights))


def _inside_wrappers(layers: list[LoraLayer]) -> list[LoraLayer]:
    """Layers of modules that lie in a module whose parameter is wrapped go by its ".base_layer"."""
    outer: dict[str, int] = {}
    for layer in layers:
        if layer.what in ("ParamWrapper", "MultiheadAttention"):
            outer[layer.module] = outer.get(layer.module, 0) + 1
    if not outer:
        return layers
    named = ((layer, _inside(layer, outer)) for layer in layers)
    return [layer if layer.name == name else layer._replace(name=name) for layer, name in named]


def _inside(layer: LoraLayer, outer: dict[str, int]) -> str:
    parts = layer.module.split(".")
    around = [name for end in range(1, len(parts)) if (name := ".".join(parts[:end])) in outer]
    for name in sorted(around, key=list(outer).index) if len(around) > 1 else around:
        if not layer.name.startswith(f"{name}.base_layer."):
            return f"{name}{'.base_layer' * outer[name]}.{layer.name[len(name) + 1 :]}"
    return layer.name


def _module_layers(index: TreeIndex, config: LoraConfig, names: Sequence[str]) -> list[LoraLayer]:
    if config.peft_type == "ADALORA":
        return _adalora_layers(index, config, names)
    chosen = ranks(names, config)
    for rank in {id(rank): rank for rank in chosen.values()}.values():  # each once; a wrong one may have no hash
        check_rank(rank, "r" if rank == config.r else "rank_pattern")
    check_alphas(config, chosen)
    if not names:
        return []
    settings = Settings.of(config)
    layers: list[LoraLayer] = []
    for name in names:
        module = index.modules[name]
        weight, packing = loaded(index, name)
        layers += lora_layers(module, chosen[name], settings, weight, packing)
        if module.kind in ("Linear", "Conv1D") and (packing is None or packing.scheme not in OWN_LAYERS):
            settings = settings._replace(turned=module.kind == "Conv1D")
        if module.kind == "MultiheadAttention":
            layers += _attention_output(index, module, chosen[name], settings, chosen)
    return layers


def _adalora_layers(index: TreeIndex, config: LoraConfig, names: Sequence[str]) -> list[LoraLayer]:
    from estimator.lora.svd import svd_layers

    rank = adalora_fields(config)["init_r"]
    layers: list[LoraLayer] = []
    for name in names:
        weight, packing = loaded(index, name)
        layers += svd_layers(index.modules[name], rank, weight, packing.scheme if packing is not None else None)
    return layers


def _unmatched_patterns(config: LoraConfig, names: Sequence[str], parameters: Sequence[str]) -> tuple[str, ...]:
    """Keys of rank_pattern and alpha_pattern that decide nothing, each with its field: `rank_pattern: q_proj`.

    Raises InvalidLoraError for a faulty one where modules are targeted: PEFT tries every key then, to warn of those.
    """
    found = []
    for field in ("rank_pattern", "alpha_pattern"):
        if field == "rank_pattern" and config.peft_type == "ADALORA":
            check_keys(config.rank_pattern if names else {}, field)
            continue  # names of parameters, with the ranks that training has left
        unmatched = unmatched_keys(names, getattr(config, field) or {}, field)
        if unmatched and parameters:
            left = set(unmatched_keys(parameters, dict.fromkeys(unmatched), field))
            unmatched = [key for key in unmatched if key in left]
        found += [f"{field}: {key}" for key in unmatched]
    return tuple(found)


def _attention_output(
    index: TreeIndex, module: Module, rank: int, settings: Settings, names: Collection[str]
) -> list[LoraLayer]:
    """MultiheadAttention's out_proj is wrapped with it."""
    output = index.modules[f"{module.name}.out_proj"]
    if output.name in names:
        raise UnsupportedError(
            f"{module.name} is a MultiheadAttention and wraps its out_proj, which is targeted as well: PEFT gives it a "
            "second layer that never acts, and saves it with a base weight. Such files are not counted.",
            where="target_modules",
            way_out=f"leave {output.name} out, or {module.name}",
        )
    layers = lora_layers(output, rank, settings, weight_of(index, output), None)
    return [layer._replace(name=f"{module.name}.base_layer.out_proj") for layer in layers]
