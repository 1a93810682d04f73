"""What Unsloth makes of target names: a pattern of its own on all but the text models that it has fast code for.

Unsloth and unsloth_zoo of August 2026: models/vision.py and models/llama.py, get_peft_model; peft_utils.py,
get_peft_regex. Its pattern is followed here by hand, since matching it would take the square of a name's length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from estimator.architecture.module import ModuleTree
from estimator.lora.trainer_rule import Resolved, leaf, linear, refuse_unsloths_own, refused, uncounted
from estimator.notes import Note

FAST = frozenset({"llama", "mistral", "gemma", "gemma2", "qwen2", "qwen3"})  # models/loader.py
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_MODEL_PARTS = {
    "finetune_vision_layers": ("vision", "image", "visual", "patch"),
    "finetune_language_layers": ("language", "text"),
}
_COMPONENTS = {
    "finetune_attention_modules": ("self_attn", "attention", "attn", "mixer"),
    "finetune_mlp_modules": ("mlp", "feed_forward", "ffn", "dense", "mixer"),
}
_OF_TEXT = {"finetune_vision_layers": False}  # what get_peft_model sets where no scope is given
_HEARING = ("audio_config", "speech_config")


def unsloth(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """Raises UnsupportedError for experts, for models that hear and for layers that Unsloth's own copies split."""
    refuse_unsloths_own(tree, has_towers=any(tree.config.get(section) for section in _HEARING))
    if tree.is_composite:
        return _several_towers(settings, tree, lora)
    given = lora.get("target_modules") or list(SEVEN)
    if settings.get("all_linear"):
        raise uncounted("Unsloth does not take all-linear on text models", "name the modules with --targets")
    if tree.config.get("model_type") in FAST:
        return Resolved(tree, _embeddings_saved({**lora, "target_modules": given}))
    stored = tree.config.get("architectures") or [tree.architecture]
    if "ForCausalLM" not in str(stored):  # models/sentence_transformer.py, and FastModel on speech
        return Resolved(tree, {**lora, "target_modules": given})
    return Resolved(tree, {**lora, "target_modules": _scoped(tree, given, _OF_TEXT)})


def _several_towers(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """FastVisionModel.get_peft_model, as the application calls it for images."""
    scopes = settings.get("scopes") or {}
    given = list(SEVEN) if settings.get("text_names") else lora.get("target_modules") or list(SEVEN)
    if settings.get("vision_all_linear") or (settings.get("all_linear") and not settings.get("text_names")):
        lora["target_modules"] = _scoped(tree, _repeated(tree), {})
        return Resolved(tree, lora)
    narrowed = any(scopes.get(name) is False for name in (*_MODEL_PARTS, *_COMPONENTS))
    lora["target_modules"] = _scoped(tree, given, scopes) if narrowed else given
    if scopes.get("finetune_vision_layers") is False:
        return Resolved(tree, lora)
    message = (
        "Unsloth is taken to train on images here; on text alone it adapts nothing of the vision tower, as with "
        "finetune_vision_layers: false."
    )
    return Resolved(tree, lora, (Note("images_assumed", message),))


def _embeddings_saved(lora: dict[str, Any]) -> dict[str, Any]:
    """embed_tokens among the targets trains in full."""
    names = lora["target_modules"]
    if "embed_tokens" not in names:
        return lora
    saved = [*(lora.get("modules_to_save") or ()), "embed_tokens"]
    return {
        **lora,
        "target_modules": [name for name in names if name != "embed_tokens"],
        "modules_to_save": list(dict.fromkeys(saved)),
    }


def _repeated(tree: ModuleTree) -> list[str]:
    """Last parts of the Linears' names that several of them share: neither the head nor a projection between towers."""
    counts = Counter(leaf(module.name) for module in linear(tree))
    return [name for name, count in counts.items() if count != 1]


def _scoped(tree: ModuleTree, leaves: Sequence[str], scopes: Mapping[str, Any]) -> list[str]:
    """Full names that Unsloth's pattern takes. Raises UsageError where Unsloth would stop."""
    parts = [tag for name, tags in _MODEL_PARTS.items() if scopes.get(name, True) for tag in tags]
    components = [tag for name, tags in _COMPONENTS.items() if scopes.get(name, True) for tag in tags]
    for chosen, names in ((parts, _MODEL_PARTS), (components, _COMPONENTS)):
        if not chosen:
            raise refused(f"Unsloth finds nothing to train where {' and '.join(names)} are false", "lora",
                          "set one of them to true")  # fmt: skip
    language = scopes.get("finetune_language_layers", True)
    named = [module.name for module in tree.modules]
    found = [
        name
        for name in named
        if _holds(name, (parts, components), leaves) or (language and _of_plain_layer(name, components, leaves))
    ]
    found = found or [name for name in named if _holds(name, (components,), leaves)]
    if not {module.name for module in linear(tree)} & set(found):
        raise refused(f"Unsloth finds none of {', '.join(leaves)} in the chosen parts", "target_modules",
                      "name other modules")  # fmt: skip
    return found


def _holds(name: str, groups: Sequence[Sequence[str]], leaves: Sequence[str]) -> bool:
    """Whether a tag of each group is in the name, one behind the other, and one of the leaves at its end."""
    place = 0
    for tags in groups:
        ends = [at + len(tag) for tag in tags if (at := name.find(tag, place)) >= 0]
        if not ends:
            return False
        place = min(ends)
    return name[place:].endswith(tuple(leaves))


def _of_plain_layer(name: str, components: Sequence[str], leaves: Sequence[str]) -> bool:
    """model.layers.0.self_attn.q_proj and the like, where no part of the name says which tower it is."""
    parts = name.split(".", 4)
    return len(parts) == 5 and parts[:2] == ["model", "layers"] and parts[3] in components and parts[4] in leaves
