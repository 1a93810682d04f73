"""What Unsloth makes of target names: a pattern of its own on all but the text models that it has fast code for.

Unsloth and unsloth_zoo of August 2026: models/vision.py and models/llama.py, get_peft_model; peft_utils.py,
get_peft_regex. Its pattern is followed here by hand, since matching it would take the square of a name's length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from estimator.architecture.module import ModuleTree
from estimator.lora.trainers.rule import Resolved, leaf, linear, refuse_unsloths_own, refused, uncounted
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
# Linears of Gemma 3n's and 4's own that no tag names; of the tower of sounds, only where it is asked for.
_GEMMA_SOUND = {
    "finetune_attention_modules": ("q_proj", "k_proj", "v_proj", "relative_k_proj", "pos_proj", "post"),
    "finetune_mlp_modules": ("ffw_layer_1", "ffw_layer_2", "linear_start", "linear_end", "input_proj_linear",
                             "output_proj"),
}  # fmt: skip
_GEMMA_SIGHT = ("embed_vision.embedding_projection", "vision_embedder.patch_dense",
                "vision_tower.patch_embedder.input_proj")  # fmt: skip
CLIPPABLE = "Gemma4ClippableLinear"  # Unsloth and Axolotl have PEFT adapt the Linear inside


def unsloth(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """Raises UnsupportedError for experts, for models that hear and for layers that Unsloth's own copies split."""
    hears = any(tree.config.get(section) for section in _HEARING)
    refuse_unsloths_own(tree, has_towers=hears and not _is_gemma(tree))
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
        names = _scoped(tree, _repeated(tree), {}, _gemmas_own(tree, {}, sound=True))
        lora["target_modules"] = inside(tree, names)
        return Resolved(tree, lora)
    if any(scopes.get(name) is False for name in (*_MODEL_PARTS, *_COMPONENTS)):
        own = [name for name in _gemmas_own(tree, scopes, sound=False) if leaf(name) in given]
        lora["target_modules"] = inside(tree, _scoped(tree, given, scopes, own))
    else:
        lora["target_modules"] = inside(tree, given)
    if scopes.get("finetune_vision_layers") is False:
        return Resolved(tree, lora)
    message = (
        "Unsloth is taken to train on images here; on text alone it adapts nothing of the vision tower, as with "
        "finetune_vision_layers: false."
    )
    return Resolved(tree, lora, (Note("images_assumed", message),))


def _is_gemma(tree: ModuleTree) -> bool:
    return any(kind in str(tree.config.get("model_type")) for kind in ("gemma3n", "gemma4"))


def _gemmas_own(tree: ModuleTree, scopes: Mapping[str, Any], *, sound: bool) -> list[str]:
    """Linears that Unsloth adds to its pattern on Gemma 3n and 4 alone."""
    if not _is_gemma(tree):
        return []
    leaves = [name for scope, names in _GEMMA_SOUND.items() if scopes.get(scope, True) for name in names]
    ends = ["embed_audio.embedding_projection"] if sound and scopes.get("finetune_mlp_modules", True) else []
    if scopes.get("finetune_vision_layers", True) and scopes.get("finetune_mlp_modules", True):
        ends += _GEMMA_SIGHT
    named = {module.name: module.name.removesuffix(".linear").split(".") for module in linear(tree)}
    return [
        name
        for name, parts in named.items()
        if ".".join(parts[-2:]) in ends
        or ".".join(parts[-3:]) in ends
        or (sound and "audio_tower" in parts[:-1] and parts[-1] in leaves)
    ]


def inside(tree: ModuleTree, names: list[str]) -> list[str]:
    """The Linear inside each clippable one that is named; the names as they are where there is none."""
    around = {module.name for module in tree.modules if module.cls == CLIPPABLE}
    ends = tuple(f".{name}" for name in names)
    clipped = [name for name in around if f".{name}".endswith(ends)]
    if not clipped:
        return names
    found = (module.name for module in tree.modules if f".{module.name}".endswith(ends))
    return list(dict.fromkeys(f"{name}.linear" if name in around else name for name in found))


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


def _scoped(tree: ModuleTree, leaves: Sequence[str], scopes: Mapping[str, Any], own: Sequence[str] = ()) -> list[str]:
    """Full names that Unsloth's pattern takes, and `own` beside them. Raises UsageError where Unsloth would stop."""
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
        if _holds(name, (parts, components), leaves)
        or (language and _of_plain_layer(name, components, leaves))
        or name in own
    ]
    linears = [module.name for module in linear(tree)]
    reached = any(_searched(name, (parts, components), leaves) for name in linears) or bool({*linears} & {*found})
    if not reached:
        found = [name for name in named if _holds(name, (components,), leaves)]
        reached = any(_searched(name, (components,), leaves) for name in linears)
    if not reached:
        raise refused(f"Unsloth finds none of {', '.join(leaves)} in the chosen parts", "target_modules",
                      "name other modules")  # fmt: skip
    return found


def _holds(name: str, groups: Sequence[Sequence[str]], leaves: Sequence[str]) -> bool:
    """Whether a tag of each group is in the name, one behind the other, and one of the leaves at its end."""
    place = _behind(name, groups)
    return place is not None and name[place:].endswith(tuple(leaves))


def _searched(name: str, groups: Sequence[Sequence[str]], leaves: Sequence[str]) -> bool:
    """The same where more may follow the leaf, as Unsloth asks before it gives up the first group."""
    place = _behind(name, groups)
    return place is not None and any(leaf in name[place:] for leaf in leaves)


def _behind(name: str, groups: Sequence[Sequence[str]]) -> int | None:
    """Where the last tag ends; None where a group has none in the name."""
    place = 0
    for tags in groups:
        ends = [at + len(tag) for tag in tags if (at := name.find(tag, place)) >= 0]
        if not ends:
            return None
        place = min(ends)
    return place


def _of_plain_layer(name: str, components: Sequence[str], leaves: Sequence[str]) -> bool:
    """model.layers.0.self_attn.q_proj and the like, where no part of the name says which tower it is."""
    parts = name.split(".", 4)
    return len(parts) == 5 and parts[:2] == ["model", "layers"] and parts[3] in components and parts[4] in leaves
