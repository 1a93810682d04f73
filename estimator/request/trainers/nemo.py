"""NeMo Automodel's YAML (August 2026: components/_peft/lora.py, module_matcher.py)."""

from __future__ import annotations

from typing import Any

from estimator.errors import UnsupportedError, UsageError
from estimator.request.trainers.keys import BNB8, Keys, bnb4, dtype_name
from estimator.request.trainers.run_settings import attention_of
from estimator.request.training_config import Freezing, TargetRule, TrainingConfig

SOURCE = "NeMo Automodel of August 2026, components/_peft/lora.py"
# recipes/llm/train_seq_cls.py opens what has `classifier` in its name; PEFT's SEQ_CLS would open this as well.
HEADS_LEFT_FROZEN = ("score",)
DEFAULTS = {"dim": 8, "alpha": 32, "dropout": 0.0, "target_modules": "*_proj"}
# components/quantization/qlora.py, create_bnb_config; in 8 bits the compute dtype stays BitsAndBytesConfig's float32.
QUANTIZATION_DEFAULTS = {
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_quant_storage": "bfloat16",
}


def read(keys: Keys) -> TrainingConfig:
    if not keys.section("peft"):
        raise keys.no_lora("there is no section peft: this config trains no LoRA.", "add peft with dim and alpha")
    _refuse_encoders(keys)
    peft = Keys(keys.section("peft"), keys.where, DEFAULTS)
    classifies = "SequenceClassification" in _class(keys)
    steps = Keys(keys.section("step_scheduler"), keys.where, {})
    dtype = dtype_name(_model(keys).get("torch_dtype"))
    quantization = _quantization(keys)
    by_base = quantization.get("compute_dtype", "float32") if quantization else dtype or "base"
    if quantization and quantization["bits"] == 4 and peft.flag("use_dora"):
        what = "NeMo refuses use_dora on layers in 4 bits."
        raise UsageError(what, where=f"use_dora in {keys.where}", way_out="leave out one of them")
    own = _targets(peft)
    if (whole := steps.integer("global_batch_size")) is not None:
        keys.note(
            "global_batch_size", f"global_batch_size {whole}: accumulation is global / (local x data-parallel ranks)."
        )
    return TrainingConfig(
        trainer="nemo-automodel",
        lora={
            "r": peft.integer("dim"),
            "lora_alpha": peft.number("alpha"),
            "lora_dropout": peft.number("dropout"),
            "bias": "none",
            "use_dora": peft.flag("use_dora"),
            "use_rslora": False,
            "modules_to_save": ["classifier"] if classifies else None,
            "task_type": "SEQ_CLS" if classifies else None,
        },
        own={**own, "moe_rank_scaling": peft.flag("moe_rank_scaling")},
        freezing=_freezing(keys, HEADS_LEFT_FROZEN if classifies else ()),
        target_rule=TargetRule(name="nemo", settings=own),
        base=_base(keys),
        base_precision=dtype,
        quantization=quantization,
        adapter_dtype=dtype_name(peft.values.get("lora_dtype")) or by_base,
        batch_size=steps.integer("local_batch_size"),
        gradient_accumulation=None,
        sequence_length=_length(keys),
        packing=bool(Keys(keys.section("packed_sequence"), keys.where, {}).integer("packed_sequence_size")),
        gradient_checkpointing=any(
            Keys(keys.section(name), keys.where, {}).flag("activation_checkpointing")
            for name in ("distributed", "parallelizer")
        ),
        optimizer=keys.section("optimizer").get("_target_"),
        mixed_precision="no",
        num_labels=Keys(_model(keys), keys.where, {}).integer("num_labels"),
        attention=attention_of(_model(keys).get("attn_implementation")),
        saved_by_peft=False,
        defaulted=(*keys.defaulted, *peft.defaulted),
        source=SOURCE,
        notes=tuple(keys.notes),
    )


def _class(keys: Keys) -> str:
    return str(_model(keys).get("_target_"))


def _refuse_encoders(keys: Keys) -> None:
    """Raises UnsupportedError for the retrieval recipes' models, which are classes of NeMo's own."""
    if "Encoder" in _class(keys):
        what = f"{_class(keys)[:200]} builds a model of modules of its own: not counted."
        raise UnsupportedError(what, where=f"model in {keys.where}", way_out="name the modules with --targets")


def _model(keys: Keys) -> dict[str, Any]:
    return dict(keys.section("model"))


def _base(keys: Keys) -> str | None:
    model = _model(keys)
    config = model.get("config")
    places = (model, config if isinstance(config, dict) else {})
    names = ("pretrained_model_name_or_path", "name_or_path")
    return next((place[name] for place in places for name in names if isinstance(place.get(name), str)), None)


def _targets(peft: Keys) -> dict[str, Any]:
    """Raises UsageError for what ModuleMatcher refuses: more than one way to name targets."""
    excluded, given = _patterns(peft, "exclude_modules"), _patterns(peft, "target_modules")
    all_linear = peft.flag("match_all_linear")
    if sum(map(bool, (excluded, all_linear, given))) > 1:
        why = "target_modules, exclude_modules and match_all_linear exclude each other in NeMo Automodel."
        raise UsageError(why, where=f"peft in {peft.where}", way_out="keep one of them")
    wanted = given if given or excluded or all_linear else [peft.get("target_modules") or DEFAULTS["target_modules"]]
    return {"target_modules": wanted, "exclude_modules": excluded, "match_all_linear": all_linear}


def _patterns(peft: Keys, key: str) -> list[str]:
    """A text is one pattern, whatever stands in it."""
    value = peft.values.get(key)
    return [value] if value and isinstance(value, str) else peft.names(key) or [] if value else []


# Names of modules that each switch freezes once the adapter is made, and what it is where freeze_config leaves it out.
_FREEZES = (
    ("freeze_vision_tower", True, ("vision", "visual", "image_encoder")),
    ("freeze_audio_tower", False, ("audio", "speech", "sound")),
    ("freeze_language_model", False, ("language", "text", "llm")),
)


def _freezing(keys: Keys, heads: tuple[str, ...]) -> Freezing | None:
    """Raises UnsupportedError for selectors of modules, which only later releases have."""
    given = keys.section("freeze_config")
    if selector := next((key for key in ("freeze_modules", "unfreeze_modules") if given.get(key)), None):
        what = f"freeze_config.{selector} is of a later NeMo Automodel: what it freezes is not known here."
        raise UnsupportedError(what, where=f"{selector} in {keys.where}", way_out="give the freeze_ switches alone")
    switches = Keys({key: given.get(key, default) for key, default, _ in _FREEZES}, keys.where, {})
    within = [name for key, _, names in _FREEZES if given and switches.flag(key) for name in names]
    return Freezing(within=(*within, *heads)) if within or heads else None


def _quantization(keys: Keys) -> dict[str, Any] | None:
    given = Keys(keys.section("quantization"), keys.where, QUANTIZATION_DEFAULTS)
    if given.flag("load_in_4bit"):
        compute = dtype_name(given.get("bnb_4bit_compute_dtype"))
        storage = dtype_name(given.get("bnb_4bit_quant_storage"))
        return bnb4(compute, given.flag("bnb_4bit_use_double_quant"), given.text("bnb_4bit_quant_type"), storage)
    return dict(BNB8) if given.flag("load_in_8bit") else None


def _length(keys: Keys) -> int | None:
    packed = Keys(keys.section("packed_sequence"), keys.where, {}).integer("packed_sequence_size")
    if packed:
        return packed
    dataset = Keys(keys.section("dataset"), keys.where, {})
    return dataset.integer("seq_len") or dataset.integer("seq_length")
