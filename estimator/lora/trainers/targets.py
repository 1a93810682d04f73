"""What trainers make of their own ways to name targets, on the modules of a model.

Each rule hands on fields of a LoraConfig and, where the trainer's own modules are split or fused otherwise than the
published class's, the tree as the trainer builds it: the count is then the trainer's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from estimator.architecture.facts import class_for
from estimator.architecture.module import ModuleTree
from estimator.errors import MalformedConfigError
from estimator.lora.index import index_of
from estimator.lora.moe import converted
from estimator.lora.trainers.modules import litgpt, torchtune
from estimator.lora.trainers.rule import (
    Resolved,
    called_linear,
    has_experts,
    leaf,
    linear,
    refuse_none,
    refused,
    uncounted,
)
from estimator.lora.trainers.towers import llamafactory, swift
from estimator.lora.trainers.unsloth import CLIPPABLE, inside, unsloth
from estimator.notes import Note
from estimator.request.lora_config import from_mapping
from estimator.request.patterns import fullmatching


def apply_rule(name: str, settings: Mapping[str, Any], tree: ModuleTree, lora: Mapping[str, Any]) -> Resolved:
    """Raises UnsupportedError where the trainer's own modules are not known here."""
    return _RULES[name](settings, tree, dict(lora))


def _axolotl_linear(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """axolotl 0.18.0, loaders/adapter.py, find_all_linear_names: no part of a model is left out but the head."""
    head = "embed_out" if tree.config.get("model_type") == "gpt_neox" else "lm_head"
    names = {leaf(module.name) for module in (*linear(tree), *called_linear(tree))} - {head}
    lora["target_modules"] = sorted(names | set(settings.get("and") or ()))
    refuse_none(tree, lora["target_modules"], "lora_target_modules")
    resolved = _listed(settings, tree, lora)
    return resolved._replace(notes=(*resolved.notes, *_of_the_head(tree, names, "Axolotl")))


def _of_the_head(tree: ModuleTree, names: Collection[str], trainer: str) -> tuple[Note, ...]:
    if leaf(tree.output_embedding or "") not in names:
        return ()
    message = (
        f"{tree.output_embedding} is adapted too: {trainer} knows the head of {tree.architecture} by another name."
    )
    return (Note("head_adapted", message),)


def _linear_names(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """The last name part of every Linear but lm_head; on few bits of those that are quantised, which spares the head.

    find_all_linear_names of artidoro's qlora.py (2023) and of Firefly's train.py (2024).
    """
    resolved = _causal({"multimodal": ()}, tree, lora)
    found = [module.name for module in linear(tree) if not tree.quantised or module.name in tree.quantised]
    names = {leaf(name) for name in found} - {"lm_head"}
    refuse_none(tree, sorted(names), "the base")
    resolved.lora["target_modules"] = sorted(names)
    if settings.get("unsloth"):
        return unsloth({"all_linear": False}, tree, resolved.lora)
    return resolved._replace(notes=_of_the_head(tree, names, "the trainer"))


def _h2o(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """H2O LLM Studio of March 2026, prepare_lora: no module with "head" anywhere in its name; Conv1D as well."""
    resolved = _causal({"multimodal": ()}, tree, lora)
    found = [module.name for module in tree.modules if module.kind in ("Linear", "Conv1D", "Conv1d")]
    resolved.lora["target_modules"] = sorted({leaf(name) for name in found if "head" not in name})
    return resolved


def _nemo(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """NeMo Automodel's ModuleMatcher: wildcards over full names, the head not spared; nn.Linear alone is wrapped."""
    if has_experts(tree):
        raise uncounted("NeMo builds a model of experts of modules of its own", "name a dense base")
    names = [module.name for module in linear(tree)]
    if settings["target_modules"]:
        names = _wild(settings["target_modules"], names, "target_modules")
    elif settings["exclude_modules"]:
        excluded = set(_wild(settings["exclude_modules"], names, "exclude_modules"))
        names = [name for name in names if name not in excluded]
    if any(map(_shares_keys(tree), names)):
        raise uncounted(
            "NeMo freezes LoRA on layers that take keys and values of others", "target neither k_proj nor v_proj"
        )
    lora["target_modules"] = names
    notes: tuple[Note, ...] = ()
    if tree.output_embedding in names:
        notes = (
            Note("head_adapted", f"{tree.output_embedding} is adapted too; PEFT's all-linear would leave it out."),
        )
    return Resolved(tree, lora, notes)


def _shares_keys(tree: ModuleTree) -> Callable[[str], bool]:
    """Whether a name is of the key or the value of a layer that has none at run time.

    components/utils/model_utils.py, freeze_unused_kv_sharing_params.
    """
    text = tree.config.get("text_config") or tree.config
    layers, sharing = (_whole(text, field) for field in ("num_hidden_layers", "num_kv_shared_layers"))
    without = range(layers - sharing, layers)
    return lambda name: any(int(match[1]) in without for match in _KEYS.finditer(name))


# NeMo asks for this anywhere in a name: a tower's layers of these numbers are frozen as well.
_KEYS = re.compile(r"layers\.(\d{1,9})\.self_attn\.[kv]_proj")


def _whole(text: Mapping[str, Any], field: str) -> int:
    """A count of layers; 0 where there is none. Raises MalformedConfigError for what is no whole number."""
    value = text.get(field) or 0
    if not isinstance(value, int):
        what = f"{field} is {str(value)[:60]!r}: no whole number."
        raise MalformedConfigError(what, where=f"{field} in config.json", way_out="give the number of layers")
    return value


def _wild(patterns: Sequence[str], names: Sequence[str], where: str) -> list[str]:
    """module_matcher.py, wildcard_match: the whole name, `*` for anything, and the rest a regular expression."""
    found: set[str] = set()
    for pattern in patterns:
        regex = re.sub(r"\.\*", "(.*)", re.sub(r"(?<!\.)\*", ".*", pattern))
        found.update(name for name in names if name == pattern)
        found.update(fullmatching(regex, names, where=where))
    return [name for name in names if name in found]


def _listed(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """The names as they are, on the class that the checkpoint names; Axolotl's experts do without the dropout, and of
    a clippable Linear the one inside is adapted.

    axolotl 0.18.0, loaders/adapter.py: _patch_peft_param_wrapper_dropout, where PEFT makes names of experts parameters;
    _patch_peft_clippable_linear.
    """
    if lora.get("layers_to_transform") is None:
        lora["target_modules"] = _clippable_inside(tree, lora["target_modules"])
    if not lora.get("lora_dropout") or lora.get("target_parameters"):
        return Resolved(tree, lora)
    if not converted(index_of(tree), from_mapping(lora)).target_parameters:
        return Resolved(tree, lora)
    message = (
        "Axolotl makes the experts' LoRA without lora_dropout, which PEFT refuses; other layers have it. 0 is shown."
    )
    return Resolved(tree, {**lora, "lora_dropout": 0.0}, (Note("experts_without_dropout", message),))


def _clippable_inside(tree: ModuleTree, targets: Any) -> Any:
    if isinstance(targets, list):
        return inside(tree, targets)
    if not any(module.cls == CLIPPABLE for module in tree.modules):
        return targets
    named = fullmatching(targets, [module.name for module in tree.modules], where="lora_target_modules")
    found = inside(tree, named)
    return targets if found == named else found


def _causal(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """PEFT's own rules, on what AutoModelForCausalLM loads: of some models of several towers the text model alone."""
    kind = str(tree.config.get("model_type"))
    if not tree.is_composite or kind in settings["multimodal"]:
        return Resolved(tree, lora)
    built = class_for(kind, "CAUSAL_LM")
    if built is None:
        what = f"AutoModelForCausalLM, with which the trainer loads its model, has no class for {kind}"
        raise refused(what, "the base", "name a text model")
    if built != tree.architecture:
        what = f"The trainer loads {built}, the text model of {tree.architecture}, with AutoModelForCausalLM"
        raise uncounted(what, f"--set 'architectures=[\"{built}\"]' counts it")
    return Resolved(tree, lora)


_RULES: Mapping[str, Callable[[Mapping[str, Any], ModuleTree, dict[str, Any]], Resolved]] = {
    "listed": _listed,
    "axolotl_linear": _axolotl_linear,
    "llamafactory": llamafactory,
    "swift_all_linear": swift,
    "torchtune": torchtune,
    "litgpt": litgpt,
    "nemo": _nemo,
    "unsloth": unsloth,
    "causal": _causal,
    "linear_names": _linear_names,
    "h2o": _h2o,
}
