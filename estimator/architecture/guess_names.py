"""Run-time names and shapes of an unknown architecture, from the names that its file holds.

transformers 5 loads files of older layouts under newer names (conversion_mapping.py) and saves them under the old ones
again. Each layout below is one that many of its model families share; which one a file has is seen from its names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from estimator.architecture.load import Loaded
from estimator.architecture.rename import natural_key
from estimator.checkpoint.checkpoint import Tensor

_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")
_EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj|w1|w2|w3)\.weight")
_ROLES = {"gate_proj": "gate", "w1": "gate", "up_proj": "up", "w3": "up", "down_proj": "down", "w2": "down"}
_HEADS = r"(?!(lm_head|score|classifier|qa_outputs|head|embedding_proj_layer)\.)"


class Layout(NamedTuple):
    """Names that a file may have, and what they are at run time. "#" stands for an index in all of them."""

    needs: tuple[str, ...]  # expressions that some name has to match, each
    lacks: str  # one that none may match
    renames: tuple[tuple[str, str], ...]  # one after the other; "{base}": what the first need captured
    classes: str = ""  # of config.json's class name


# Rules' source: transformers 5.23.0, conversion_mapping.py, _build_checkpoint_conversion_mapping().
LAYOUTS = (
    Layout(  # LLaVA and the like: a whole language model inside, its head outside at run time
        (r"language_model\.model\.", r"(multi_modal_projector|vision_embed_tokens)\."),
        r"vision_model\.vision_adapter|qformer\.",
        (
            (r"^language_model\.lm_head\.", "lm_head."),
            (r"^language_model\.model\.", "language_model."),
            (rf"^{_HEADS}(?!model\.)", "model."),
        ),
        r".*(?<!Model)",
    ),
    Layout(
        (r"language_model\.model\.", r"(multi_modal_projector|vision_embed_tokens)\."),
        r"vision_model\.vision_adapter|qformer\.",
        ((r"^language_model\.model\.", "language_model."),),
        r".*Model",
    ),
    Layout(  # Qwen2-VL: the language model's layers at the top, the tower beside them
        (r"model\.layers\.#", r"(visual|audio_tower)\."),
        r"model\.language_model\.",
        ((r"^model\.", "language_model."), (rf"^{_HEADS}", "model.")),
        r".*(?<!Model)",
    ),
    Layout(  # ViT, whose attention has been the language models' since 5.0
        (r"(?:(\w+)\.)?embeddings\.patch_embeddings\.", r".*encoder\.layer\.#\.attention\.attention\.query\."),
        r".*(lambda_1|relative_position|detection_tokens|text_model|text_embeddings|layer_scale|neck\.)",
        (
            (r"^(?:\w+\.)?encoder\.layer\.", "{base}layers."),
            (r"_encoder\.layer\.", "_layers."),
            (r"(layers\.#)\.norm1\.", r"\1.layernorm_before."),
            (r"(layers\.#)\.norm2\.", r"\1.layernorm_after."),
            (r"\.attention\.attention\.(q|k|v)\w+\.", r".attention.\1_proj."),
            (r"\.attention\.output\.dense\.", ".attention.o_proj."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"\.output\.dense\.", ".mlp.fc2."),
        ),
    ),
    Layout(  # DINOv2
        (r".*encoder\.layer\.#\.attention\.attention\.query\.", r".*encoder\.layer\.#\.layer_scale"),
        r".*lambda_1\b",
        (
            (r"\.attention\.attention\.(q|k|v)\w+\.", r".attention.\1_proj."),
            (r"\.attention\.output\.dense\.", ".attention.o_proj."),
        ),
    ),
    Layout(  # Granite's experts, stored fused
        (r".*block_sparse_moe\.input_linear\.weight",),
        r".*block_sparse_moe\.experts\.",
        (
            (r"\.block_sparse_moe\.input_linear\.weight$", ".block_sparse_moe.experts.gate_up_proj"),
            (r"\.block_sparse_moe\.output_linear\.weight$", ".block_sparse_moe.experts.down_proj"),
            (r"\.block_sparse_moe\.router\.layer\.weight$", ".block_sparse_moe.router.weight"),
        ),
    ),
    Layout(  # Mixtral
        (r".*block_sparse_moe\.experts\.#\.w1\.weight",),
        r".*block_sparse_moe\.input_linear\.",
        ((r"\.block_sparse_moe\.", ".mlp."),),
    ),
)
_LEGACY = (  # of all classes: core_model_loading.py
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)


def run_time_parameters(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Loaded]:
    """By run-time name. Code that a repository brings itself (`auto_map`) keeps its names, and its experts apart."""
    found: dict[str, Loaded] = {}
    experts: dict[str, dict[str, list[Tensor]]] = {}
    own_code = "auto_map" in config
    rename = _renamer(config, tensors, () if own_code else LAYOUTS)
    in_order = tensors.values() if own_code else sorted(tensors.values(), key=lambda tensor: natural_key(tensor.name))
    for tensor in in_order:
        name = rename(tensor.name)
        match = None if own_code else _EXPERT.fullmatch(name)
        if match is None:
            found[name] = Loaded(tensor.shape, tensor.dtype, (tensor.name,))
        else:
            experts.setdefault(match[1], {}).setdefault(_ROLES[match[3]], []).append(tensor)
    for owner, roles in experts.items():
        found.update(_fused(owner, roles))
    return found


def _renamer(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], layouts: Sequence[Layout]
) -> Callable[[str], str]:
    """From a stored name to the run-time name. Names that differ in their indices alone are renamed once."""
    templates = dict.fromkeys(_INDEX.sub("#", name) for name in tensors)
    renames = [(re.compile(pattern), new) for pattern, new in (*_chosen(config, templates, layouts), *_LEGACY)]
    for template in templates:
        renamed = template
        for pattern, new in renames:
            renamed = pattern.sub(new, renamed, count=1)
        templates[template] = renamed

    def rename(name: str) -> str:
        indices = iter(_INDEX.findall(name))
        renamed = templates[_INDEX.sub("#", name)]
        return re.sub("#", lambda _: next(indices), renamed) if "#" in renamed else renamed

    return rename


def _chosen(
    config: Mapping[str, Any], templates: Mapping[str, Any], layouts: Sequence[Layout]
) -> list[tuple[str, str]]:
    """The renames of every layout that the names show."""
    named = config.get("architectures")
    cls = str(named[0]) if isinstance(named, list) and named else ""
    found = []
    for layout in layouts:
        if layout.classes and not re.fullmatch(layout.classes, cls):
            continue
        first = [next(filter(None, (re.match(need, name) for name in templates)), None) for need in layout.needs]
        if None in first or any(re.match(layout.lacks, name) for name in templates):
            continue
        base = f"{first[0][1]}." if first[0].re.groups and first[0][1] else ""
        found += [(pattern, new.replace("{base}", base)) for pattern, new in layout.renames]
    return found


def _fused(owner: str, roles: Mapping[str, list[Tensor]]) -> dict[str, Loaded]:
    """Experts as transformers keeps them: gates and ups in one parameter, downs in another."""
    found = {}
    if "gate" in roles and "up" in roles:
        both = roles["gate"] + roles["up"]
        rows, columns = roles["gate"][0].shape
        shape = (len(roles["gate"]), rows + roles["up"][0].shape[0], columns)
        found[f"{owner}.gate_up_proj"] = Loaded(shape, both[0].dtype, tuple(tensor.name for tensor in both))
    elif "up" in roles:
        found[f"{owner}.up_proj"] = _stacked(roles["up"])
    if "down" in roles:
        found[f"{owner}.down_proj"] = _stacked(roles["down"])
    return found


def _stacked(tensors: list[Tensor]) -> Loaded:
    return Loaded((len(tensors), *tensors[0].shape), tensors[0].dtype, tuple(tensor.name for tensor in tensors))
