"""Layouts of checkpoints that several model families of transformers share, seen from their names alone.

transformers 5 loads files of older layouts under newer names, and saves them under the old ones again. An unknown
architecture whose names show one of these layouts is taken to be loaded as the families are that have it.

Rules' source: transformers 5.23.0, conversion_mapping.py, `_build_checkpoint_conversion_mapping` and
`_MODEL_TO_CONVERSION_PATTERN`; core_model_loading.py for what holds of all classes.
"""

from typing import NamedTuple


class Layout(NamedTuple):
    """Names that a file may have, and what they are at run time. "#" stands for an index in all of them.

    In what a name becomes, "{base}" is what the first need captured, "{type}" config.json's model type.
    """

    needs: tuple[str, ...]  # expressions that some name has to match from its beginning, each
    lacks: str  # one that none may match
    renames: tuple[tuple[str, str], ...]  # one after the other
    splits: tuple[tuple[str, tuple[str, ...]], ...] = ()  # a module's name -> those that share its rows evenly
    merges: tuple[tuple[tuple[str, ...], str], ...] = ()  # ends of names -> the one that has all their rows
    classes: str = ""  # of config.json's class name


_HEADS = r"(?!(lm_head|score|classifier|qa_outputs|head|embedding_proj_layer)\.)"
_HEADED = r".*(For[A-Z]\w*|LMHeadModel)"
_KEEPS_THE_MODEL_WHOLE = r"vision_model\.vision_adapter|qformer\."
_QKV = ("q_proj", "k_proj", "v_proj")

LAYOUTS = (
    Layout(  # the base model's file, for a class with a head: most call what it is within `model`
        needs=(r"layers\.#\.", r"embed_tokens\."),
        lacks=r"(model|transformer)\.",
        renames=((rf"^{_HEADS}", "model."),),
        classes=_HEADED,
    ),
    Layout(
        needs=(r"h\.#\.",),
        lacks=r"transformer\.",
        renames=((rf"^{_HEADS}", "transformer."),),
        classes=_HEADED,
    ),
    Layout(  # and BERTs by their type
        needs=(r"embeddings\.word_embeddings\.", r"encoder\.layer\.#\."),
        lacks=r"cls\.",
        renames=((r"^(embeddings|encoder|pooler)\.", r"{type}.\1."),),
        classes=_HEADED,
    ),
    Layout(  # LLaVA and the like: a whole language model inside, its head outside at run time
        needs=(r"language_model\.model\.(embed_tokens|layers)\.",),
        lacks=_KEEPS_THE_MODEL_WHOLE,
        renames=(
            (r"^language_model\.lm_head\.", "lm_head."),
            (r"^language_model\.model\.", "language_model."),
            (rf"^{_HEADS}(?!model\.)", "model."),
            (r"^(model\.vision_tower)\.vision_model\.", r"\1."),
        ),
        classes=r".*(?<!Model)",
    ),
    Layout(
        needs=(r"language_model\.model\.(embed_tokens|layers)\.",),
        lacks=_KEEPS_THE_MODEL_WHOLE,
        renames=(
            (r"^language_model\.model\.", "language_model."),
            (r"^vision_tower\.vision_model\.", "vision_tower."),
        ),
        classes=r".*Model",
    ),
    Layout(  # Qwen2-VL: the language model's layers at the top, the tower beside them
        needs=(r"model\.layers\.#", r"(visual|audio_tower)\."),
        lacks=r"model\.language_model\.",
        renames=((r"^model\.", "language_model."), (rf"^{_HEADS}", "model.")),
        classes=r".*(?<!Model)",
    ),
    Layout(  # ViT, whose attention has been named as the language models' since 5.0
        needs=(r"(?:(\w+)\.)?embeddings\.patch_embeddings\.", r".*encoder\.layer\.#\.attention\.attention\.query\."),
        lacks=r".*(lambda_1|relative_position|detection_tokens|text_model|text_embeddings|layer_scale|neck\.)",
        renames=(
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
        needs=(r".*encoder\.layer\.#\.attention\.attention\.query\.", r".*encoder\.layer\.#\.layer_scale"),
        lacks=r".*lambda_1\b",
        renames=(
            (r"\.attention\.attention\.(q|k|v)\w+\.", r".attention.\1_proj."),
            (r"\.attention\.output\.dense\.", ".attention.o_proj."),
            (r"\.mlp\.weights_out\.", ".mlp.down_proj."),
        ),
        splits=(("mlp.weights_in", ("gate_proj", "up_proj")),),
    ),
    Layout(  # DINOv3
        needs=(r"(backbone\.)?layer\.#\.attention\.q_proj\.",),
        lacks=r"model\.",
        renames=((r"^(backbone\.)?layer\.", r"\1model.layer."),),
    ),
    Layout(  # DETR
        needs=(r".*backbone\.conv_encoder\.", r".*encoder\.layers\.#\.fc1\."),
        lacks=r".*(encoder\.layernorm|text_backbone|refpoint|transformer_module)",
        renames=(
            (r"backbone\.conv_encoder\.", "backbone."),
            (r"_attn\.out_proj\.", "_attn.o_proj."),
            (r"(layers\.#)\.fc(1|2)\.", r"\1.mlp.fc\2."),
        ),
    ),
    Layout(  # RT-DETR
        needs=(r".*encoder\.encoder\.#\.layers\.#\.fc1\.",),
        lacks=r".*(vision|language)_backbone\.",
        renames=(
            (r"encoder\.encoder\.#\.layers\.", "encoder.aifi.#.layers."),
            (r"\.out_proj\.", ".o_proj."),
            (r"(layers\.#)\.fc(1|2)\.", r"\1.mlp.fc\2."),
        ),
    ),
    Layout(  # BERTs with rotary positions that came with code of their own
        needs=(r".*emb_ln\.", r".*encoder\.layers\.#\.\w+\.Wqkv\."),
        lacks=r".*token_mixer",
        renames=(
            (r"\bemb_ln\.", "embeddings.LayerNorm."),
            (r"encoder\.layers\.", "layers."),
            (r"(layers\.#)\.(attn|mixer)\.out_proj\.", r"\1.self_attn.o_proj."),
            (r"(layers\.#)\.(attn|mixer)\.", r"\1.self_attn."),
            (r"(layers\.#)\.norm1\.", r"\1.post_attention_layernorm."),
            (r"(layers\.#)\.norm2\.", r"\1.post_mlp_layernorm."),
        ),
        splits=(("self_attn.Wqkv", _QKV),),
    ),
    Layout(
        needs=(r".*mlp\.fc11\.", r".*mlp\.fc12\."),
        lacks=r".*mlp\.fc1\.",
        renames=((r"\.fc11\.", ".up_proj."), (r"\.fc12\.", ".gate_proj."), (r"\.mlp\.fc2\.", ".mlp.down_proj.")),
    ),
    Layout(  # linear attention with a short convolution for each of query, key and value
        needs=(r".*_attn\.q_conv1d\.weight",),
        lacks=r".*_attn\.conv1d\.",
        renames=(),
        merges=((("q_conv1d.weight", "k_conv1d.weight", "v_conv1d.weight"), "conv1d.weight"),),
    ),
    Layout(  # Kimi's delta attention
        needs=(r".*self_attn\.f_(a_)?proj\.", r".*self_attn\.A_log"),
        lacks=r".*forget_gate",
        renames=((r"\.self_attn\.(A_log$|dt_bias$|f_\w*proj\.)", r".self_attn.forget_gate.\1"),),
    ),
    Layout(  # Granite's experts, stored fused
        needs=(r".*block_sparse_moe\.input_linear\.weight",),
        lacks=r".*block_sparse_moe\.experts\.",
        renames=(
            (r"(\.block_sparse_moe)\.input_linear\.weight$", r"\1.experts.gate_up_proj"),
            (r"(\.block_sparse_moe)\.output_linear\.weight$", r"\1.experts.down_proj"),
            (r"(\.block_sparse_moe)\.router\.layer\.weight$", r"\1.router.weight"),
        ),
    ),
    Layout(  # Aria's
        needs=(r".*mlp\.experts\.fc1\.weight", r".*mlp\.experts\.fc2\.weight"),
        lacks=r".*mlp\.experts\.#",
        renames=(
            (r"(\.mlp\.experts)\.fc1\.weight$", r"\1.gate_up_proj"),
            (r"(\.mlp\.experts)\.fc2\.weight$", r"\1.down_proj"),
        ),
    ),
    Layout(  # Mixtral's, one by one
        needs=(r".*block_sparse_moe\.experts\.#\.w1\.weight",),
        lacks=r".*block_sparse_moe\.input_linear\.",
        renames=((r"\.block_sparse_moe\.", ".mlp."),),
    ),
)
LEGACY = (  # of all classes
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)
