"""Which parts of a model of several towers LLaMA-Factory and ms-swift adapt: each has a table of its own.

Names are those of transformers 5. A model type that a trainer's table lacks is one tower to it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.errors import UnsupportedError
from estimator.lora.trainers.modules import megatron
from estimator.lora.trainers.rule import (
    Resolved,
    called_linear,
    class_of,
    has_part,
    leaf,
    refuse_none,
    refuse_unsloths_own,
    uncounted,
)
from estimator.notes import Note


class Towers(NamedTuple):
    """Parts of names (LLaMA-Factory), or names of modules (ms-swift)."""

    language: tuple[str, ...] = ("language_model", "lm_head")
    projector: tuple[str, ...] = ("multi_modal_projector",)
    vision: tuple[str, ...] = ("vision_tower",)
    conflicts: tuple[str, ...] = ()  # never adapted by name


_VISUAL = Towers(projector=("visual.merger",), vision=("visual.patch_embed", "visual.blocks"),
                 conflicts=("patch_embed",))  # fmt: skip
_DEEPSTACK = _VISUAL._replace(vision=("visual.pos_embed", "visual.patch_embed", "visual.blocks",
                                      "visual.deepstack_merger_list"))  # fmt: skip
_THINKER = _VISUAL._replace(projector=("visual.merger", "audio_tower.proj"), language=("model", "lm_head"),
                            vision=("visual.patch_embed", "visual.blocks", "audio_tower"))  # fmt: skip
# LLaMA-Factory 0.9.6.dev0, model/model_utils/visual.py, _register_composite_model.
LLAMAFACTORY: Mapping[str, Towers] = {
    **dict.fromkeys(
        ("gemma3", "internvl", "interns1", "kimi_vl", "llava", "llava_next", "llava_next_video", "mistral3",
         "paligemma", "video_llava"),
        Towers(),
    ),
    "dots_ocr": Towers(("model", "lm_head"), ("vision_tower.merger",), ("vision_tower",), ("merger",)),
    "gemma3n": Towers(vision=("vision_tower", "audio_tower"), conflicts=("timm_model", "subsample_conv_projection")),
    "gemma4": Towers(projector=("model.embed_vision", "model.embed_audio"), vision=("vision_tower", "audio_tower"),
                     conflicts=("per_layer_projection_norm",)),
    **dict.fromkeys(("llama4", "mllama"), Towers(vision=("vision_model",))),
    **dict.fromkeys(("glm4v", "glm4v_moe", "glm_ocr", "qwen2_vl", "qwen2_5_vl"), _VISUAL),
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe"), _DEEPSTACK),
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe"), _VISUAL._replace(
        vision=("visual.pos_embed", "visual.patch_embed", "visual.blocks"))),
    "minicpmv4_6": Towers(("model.language_model", "lm_head"), ("model.merger",), ("model.vision_tower",)),
    "qwen2_audio": Towers(vision=("audio_tower",)),
    "qwen2_5_omni_thinker": _THINKER,
    "qwen3_omni_moe_thinker": _THINKER._replace(
        language=("language_model", "lm_head"), vision=(*_DEEPSTACK.vision, "audio_tower")),
}  # fmt: skip


# Output heads under other names, of repositories with code of their own; lm_head elsewhere, to both trainers.
_HEADS = {"chatglm": "output_layer", "internlm2": "output"}


def llamafactory(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """LLaMA-Factory 0.9.6.dev0, model/model_utils/misc.py find_all_linear_modules, visual.py patch_target_modules."""
    if settings.get("unsloth"):
        refuse_unsloths_own(tree, has_towers=tree.is_composite)
    given = settings.get("targets") or ["all"]
    kind = str(tree.config.get("model_type"))
    towers = LLAMAFACTORY.get(kind)
    frozen = _frozen(settings, towers) if towers else ()
    if given == ["all"]:
        skip = [*settings["skip"], *([_HEADS[kind]] if kind in _HEADS else ()), *(towers.projector if towers else ())]
        skip += towers.vision if towers and settings.get("freeze_vision_tower") else ()
        found = (module for module in called_linear(tree) if "Embedding" not in module.cls)
        given = sorted({leaf(module.name) for module in found if not has_part(module.name, skip)})
        refuse_none(tree, given, "lora_target")
    if (expanded := settings.get("expanded_layers")) is not None:
        layers = _expanded(tree, expanded)
        given = [m.name for m in tree.modules if has_part(m.name, given) and has_part(m.name, layers)]
    if towers:
        skip = [*frozen, *towers.conflicts]
        given = [m.name for m in tree.modules if has_part(m.name, given) and not has_part(m.name, skip)]
    lora["target_modules"] = given
    if settings.get("embeddings"):
        embeddings = (tree.input_embedding, tree.output_embedding)
        lora["modules_to_save"] = [leaf(name) for name in embeddings if name]
    return _with_value_head(tree, lora) if settings.get("value_head") else Resolved(tree, lora)


def _frozen(settings: Mapping[str, Any], towers: Towers) -> tuple[str, ...]:
    parts = (
        ("freeze_vision_tower", towers.vision),
        ("freeze_projector", towers.projector),
        ("freeze_language_model", towers.language),
    )
    return tuple(part for key, names in parts if settings.get(key) for part in names)


def _expanded(tree: ModuleTree, trainable: int) -> list[str]:
    """use_llama_pro: the last layer of each group. Raises UnsupportedError where the layers do not divide."""
    layers = tree.config.get("num_hidden_layers")
    if not isinstance(layers, int) or trainable < 1 or layers % trainable:
        what = f"{layers} layers do not divide into freeze_trainable_layers ({trainable}) groups"
        raise uncounted(what, "give a divisor of the number of layers")
    stride = layers // trainable
    return [f".{index}." for index in range(stride - 1, layers + stride - 1, stride)]


def _with_value_head(tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """TRL's AutoModelForCausalLMWithValueHead: a Linear of one output, bias included, that trains in full."""
    config = tree.config.get("text_config") or tree.config
    width = config.get("hidden_size") or config.get("n_embd")
    if not isinstance(width, int):
        raise UnsupportedError("the width of the value head is not known.", where="hidden_size", way_out="stage: sft")
    summary = (Parameter("weight", (1, width), "F32"), Parameter("bias", (1,), "F32"))
    head = (Module("v_head", "ValueHead", "other"), Module("v_head.summary", "Linear", "Linear", summary))
    lora["modules_to_save"] = [*(lora.get("modules_to_save") or ()), "v_head"]
    message = f"The value head trains too ({width:,} + 1 parameters); the trainer saves it in a file of its own."
    return Resolved(tree._replace(modules=(*tree.modules, *head)), lora, (Note("value_head", message),))


_LLAVA = Towers(("model.language_model",), ("model.multi_modal_projector",), ("model.vision_tower",))
_MERGER = Towers(("model.language_model",), ("model.visual.merger",), ("model.visual",))
_EMBEDDERS = Towers(("model.language_model",), ("model.embed_vision", "model.embed_audio"),
                    ("model.vision_tower", "model.audio_tower"))  # fmt: skip
# ms-swift 4.6.0.dev0, model/model_arch.py, by the model type of the classes registered with each.
SWIFT: Mapping[str, Towers] = {
    **dict.fromkeys(
        ("llava", "llava_next", "llava_next_video", "llava_onevision", "gemma3", "got_ocr2", "internvl", "interns1",
         "minimax_m3_vl", "mistral3", "paligemma"),
        _LLAVA,
    ),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_5", "qwen3_5_moe", "glm4v", "glm4v_moe", "glm_ocr"), _MERGER),
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe"), _MERGER._replace(
        projector=("model.visual.merger", "model.visual.deepstack_merger_list"))),
    **dict.fromkeys(("gemma3n", "gemma4"), _EMBEDDERS),
    "gemma4_unified": _EMBEDDERS._replace(vision=()),
    "mllama": _LLAVA._replace(vision=("model.vision_model",)),
    "minicpmv4_6": _LLAVA._replace(projector=("model.merger",)),
    "muse_glimmer": _LLAVA._replace(projector=("model.vision_adapter", "model.vision_projection")),
    "llama4": Towers(("language_model",), ("multi_modal_projector",), ("vision_model",)),
    "idefics3": Towers(("model.text_model",), ("model.connector",), ("model.vision_model",)),
    "qwen2_audio": Towers(("language_model",), ("multi_modal_projector",), ("audio_tower",)),
    "qwen2_5_omni": Towers(("thinker.model",), ("thinker.audio_tower.proj", "thinker.visual.merger"),
                           ("thinker.audio_tower", "thinker.visual")),
    "qwen3_omni_moe": Towers(
        ("thinker.model",),
        ("thinker.audio_tower.proj1", "thinker.audio_tower.proj2", "thinker.visual.merger",
         "thinker.visual.merger_list"),
        ("thinker.audio_tower", "thinker.visual")),
}  # fmt: skip
_SWIFT_SKIPS = ("score", "v_head", "classifier", "lora_A", "lora_B", "base_layer")
_NO_LINEAR = ("glulinear", "gemma4clippablelinear")
# PEFT refuses these by name on these model types, so ms-swift leaves them out (pipelines/train/tuner.py).
_MAMBAS = frozenset({"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"})
_MAMBA_SKIPS = frozenset({"out_proj", "conv1d"})


def swift(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """ms-swift 4.6.0.dev0, pipelines/train/tuner.py, get_multimodal_target_regex and find_all_linears."""
    if settings.get("whole_towers"):
        raise uncounted("lora_llm trains whole towers beside the LoRA", "give --tuner_type lora")
    if settings.get("megatron"):
        return megatron(tree, lora)
    if settings.get("unsloth"):
        refuse_unsloths_own(tree, has_towers=tree.is_composite)
    if settings.get("classifies") and not (tree.architecture or "").endswith("ForSequenceClassification"):
        what = f"ms-swift puts a head of its own on {tree.architecture}, which transformers has no classifier of"
        raise uncounted(what, "without task_type and num_labels the LoRA alone is counted")
    lora["modules_to_save"] = _saved(tree, lora.get("modules_to_save"))
    given = lora.get("target_modules")
    targets = [given] if given == "all-linear" else given
    if not isinstance(targets, list):  # a regular expression
        return Resolved(tree, lora)
    kind = str(tree.config.get("model_type"))
    if not (tree.is_composite and "all-linear" in targets):
        skips = _MAMBA_SKIPS if kind in _MAMBAS else frozenset()
        lora["target_modules"] = sorted({name for given in targets for name in _meant(tree, given)} - skips)
        refuse_none(tree, lora["target_modules"] if "all-linear" in targets else targets, "target_modules")
        return Resolved(tree, lora)
    towers = SWIFT.get(kind)
    if towers is None:
        raise uncounted(f"ms-swift's towers of {kind} are not known here", "give target_modules or target_regex")
    embeddings, is_linear = "all-embedding" in targets, _is_linear(tree)
    names = [m.name for m in tree.modules if is_linear(m) or (embeddings and m.kind == "Embedding")]
    lora["target_modules"] = [name for name in names if _trains(name, towers, settings)]
    return Resolved(tree, lora)


def _saved(tree: ModuleTree, given: Sequence[str] | None) -> list[str] | None:
    """get_modules_to_save, which knows of embeddings and norms alone."""
    names = [name for one in given or () for name in ([one] if one == "all-linear" else _meant(tree, one))]
    return list(dict.fromkeys(names)) or None


def _meant(tree: ModuleTree, given: str) -> list[str]:
    """Ends of the names that a word of ms-swift stands for; any other word is a name itself."""
    wanted = {"all-linear": _is_linear(tree), "all-embedding": _is_embedding, "all-norm": _is_norm}
    return _layers(tree, wanted[given]) if given in wanted else [given]


def _layers(tree: ModuleTree, wanted: Callable[[Module], bool]) -> list[str]:
    """find_layers: of each name as many parts from its end as it takes for no other module's name to end so."""
    others = {_NUMBER.sub("{}.", module.name) for module in tree.modules if not wanted(module)}
    found: dict[str, None] = {}
    taken: dict[str, int] = {}
    for name in (module.name for module in tree.modules if wanted(module)):
        like = _NUMBER.sub("{}.", name)
        parts = name.split(".")
        if like not in taken:
            ends = (_NUMBER.sub("{}.", ".".join(parts[-count:])) for count in range(1, len(parts)))
            alone = (count for count, end in enumerate(ends, 1) if not any(other.endswith(end) for other in others))
            taken[like] = next(alone, len(parts))
        found[".".join(parts[-taken[like] :])] = None
    return sorted(found)


_NUMBER = re.compile(r"\d+\.")


def _is_linear(tree: ModuleTree) -> Callable[[Module], bool]:
    """find_all_linears asks for the class's name: a router that is a Linear is none, what KimiLinear is made of is."""
    skips = (_HEADS.get(str(tree.config.get("model_type")), "lm_head"), *_SWIFT_SKIPS)

    def is_linear(module: Module) -> bool:
        cls = class_of(tree, module).lower()
        return "linear" in cls and not (has_part(cls, _NO_LINEAR) or has_part(module.name, skips))

    return is_linear


def _is_embedding(module: Module) -> bool:
    return module.kind == "Embedding"


def _is_norm(module: Module) -> bool:
    """find_norm: torch's LayerNorm and what is called RMSNorm. Raises UnsupportedError where a class may be either."""
    cls = module.cls
    if "LayerNorm" in cls and cls != "LayerNorm" and "rmsnorm" not in cls.lower():
        raise uncounted(f"whether ms-swift takes {cls} for a norm is not known here", "name the norms")
    return cls == "LayerNorm" or "rmsnorm" in cls.lower()


def _trains(name: str, towers: Towers, settings: Mapping[str, Any]) -> bool:
    """The projector counts as itself also where it lies inside the tower; a tower that is one Linear stays frozen."""
    if _inside(name, towers.projector):
        return not settings.get("freeze_aligner")
    if _inside(name, towers.vision):
        return not settings.get("freeze_vit")
    return _inside(name, towers.language) and not settings.get("freeze_llm")


def _inside(name: str, parts: Sequence[str]) -> bool:
    return any(name.startswith(f"{part}.") for part in parts)
