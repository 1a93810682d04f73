"""PEFT's LoraConfig as plain fields (peft 0.21.2, peft/tuners/lora/config.py); the rules live in `lora`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

from estimator.errors import InvalidLoraError

TASK_TYPES = ("CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")


class LoraConfig(NamedTuple):
    """Field names, order and defaults are those of adapter_config.json."""

    peft_type: str = "LORA"
    task_type: str | None = None
    r: int = 8
    target_modules: Collection[str] | str | None = None
    exclude_modules: Collection[str] | str | None = None
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    fan_in_fan_out: bool = False
    bias: str = "none"
    use_rslora: bool = False
    modules_to_save: Sequence[str] | None = None
    init_lora_weights: bool | str = True
    layers_to_transform: Sequence[int] | int | None = None
    layers_pattern: Sequence[str] | str | None = None
    rank_pattern: Mapping[str, int] = {}
    alpha_pattern: Mapping[str, float] = {}
    megatron_config: Mapping[str, Any] | None = None
    megatron_core: str | None = "megatron.core"
    trainable_token_indices: Sequence[int] | Mapping[str, Sequence[int]] | None = None
    loftq_config: Mapping[str, Any] = {}
    eva_config: Mapping[str, Any] | None = None
    corda_config: Mapping[str, Any] | None = None
    lora_ga_config: Mapping[str, Any] | None = None
    use_dora: bool = False
    velora_config: Mapping[str, Any] | None = None
    alora_invocation_tokens: Sequence[int] | None = None
    use_qalora: bool = False
    qalora_group_size: int = 16
    monteclora_config: Mapping[str, Any] | None = None
    layer_replication: Sequence[Sequence[int]] | None = None
    lora_bias: bool = False
    target_parameters: Sequence[str] | None = None
    use_bdlora: Mapping[str, Any] | None = None
    arrow_config: Mapping[str, Any] | None = None
    kasa_config: Mapping[str, Any] | None = None
    ensure_weight_tying: bool = False
    inference_mode: bool = False
    auto_mapping: Mapping[str, Any] | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None
    peft_version: str | None = None
    unknown: Mapping[str, Any] = {}  # fields that this release of PEFT does not have


def from_mapping(given: Mapping[str, Any]) -> LoraConfig:
    """Fields of an adapter_config.json as a LoraConfig; what this release of PEFT does not know goes to `unknown`.

    Raises InvalidLoraError for a value of the wrong kind (a list where a text belongs).
    """
    known, unknown = {}, {}
    of_adalora = given.get("peft_type") == "ADALORA"
    for name, value in given.items():
        if name in _IGNORED or (of_adalora and name in _NULL_TO_ADALORA and value is None):
            continue
        if name in _FIELDS:
            known[name] = _of_its_kind(name, value)
        else:
            unknown[name] = value
    return LoraConfig(**{name: value for name, value in known.items() if value is not _DEFAULT}, unknown=unknown)


def class_wanted(given: Mapping[str, Any]) -> str | None:
    """The task_type whose class is built; without one the name of the class that PEFT noted as it saved the adapter,
    with its module where that is none of transformers: code of a repository may call its class as transformers does.

    peft 0.21.2, auto.py: AutoPeftModel loads the base by `auto_mapping` where there is no task_type.

    Raises InvalidLoraError.
    """
    config = from_mapping({name: given[name] for name in ("task_type", "auto_mapping") if name in given})
    noted, module = (
        said if isinstance(said, str) else None
        for said in map((config.auto_mapping or {}).get, ("base_model_class", "parent_library"))
    )
    if noted and module and module.partition(".")[0] != "transformers":
        noted = f"{noted} of {module}"
    return config.task_type or noted


_FIELDS = frozenset(LoraConfig._fields) - {"unknown"}
_IGNORED = frozenset({"runtime_config"})  # PEFT ignores it in a file
_DEFAULT = object()
_MAX_TEXT = 200

_NUMBER, _TEXT, _NAMES = (int, float), (str,), (list, tuple, set, frozenset)
_KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("peft_type", "task_type", "bias", "base_model_name_or_path", "revision", "peft_version"), _TEXT),
    "megatron_core": _TEXT,
    **dict.fromkeys(("r", "qalora_group_size"), (int,)),
    **dict.fromkeys(("lora_alpha", "lora_dropout"), _NUMBER),
    **dict.fromkeys(
        (
            "fan_in_fan_out",
            "use_rslora",
            "use_dora",
            "use_qalora",
            "lora_bias",
            "ensure_weight_tying",
            "inference_mode",
        ),
        (bool,),
    ),
    **dict.fromkeys(("target_modules", "exclude_modules", "layers_pattern"), _TEXT + _NAMES),
    **dict.fromkeys(("modules_to_save", "target_parameters"), _TEXT + _NAMES),
    "init_lora_weights": (bool, str),
    "layers_to_transform": (int, *_NAMES),
    **dict.fromkeys(("rank_pattern", "alpha_pattern", "loftq_config", "auto_mapping"), (Mapping,)),
    "trainable_token_indices": (list, Mapping),
    **dict.fromkeys(("layer_replication", "alora_invocation_tokens"), _NAMES),
}
# To torch a tuple is one place in a table, and no list of rows.
_WHY = {"trainable_token_indices": ", on which PEFT fails, at the latest in the first forward pass"}
# Where null stands for the default, and where PEFT ends in a TypeError or AttributeError of its own.
_NULL_IS_DEFAULT = frozenset({"loftq_config"} | {name for name, kinds in _KINDS.items() if kinds == (bool,)})
_NULL_FAILS = frozenset({"peft_type", "rank_pattern", "alpha_pattern", "bias", "r", "lora_alpha", "lora_dropout"})
# AdaLoRA reads neither r nor alpha_pattern, and has no rank_pattern before it gives up ranks.
_NULL_TO_ADALORA = frozenset({"r", "rank_pattern", "alpha_pattern"})


_BY_NAME = ("rank_pattern", "alpha_pattern", "trainable_token_indices")  # keys are names of modules


def _of_its_kind(name: str, value: Any) -> Any:
    if value is None and name in _NULL_FAILS:
        raise InvalidLoraError(f"{name} is null, which PEFT cannot work with.", where=name, way_out="leave it out")
    if value is None:
        return _DEFAULT if name in _NULL_IS_DEFAULT else None
    kinds = _KINDS.get(name)
    if kinds and bool in kinds and isinstance(value, _NUMBER) and (str not in kinds or not value):
        return bool(value)  # PEFT asks whether it is true; what is true but not True, init_lora_weights reads as a text
    if kinds and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        said = kinds_in_words(kinds)
        raise InvalidLoraError(
            f"{name} is {str(value)[:_MAX_TEXT]!r}, which is {_said(value)}{_WHY.get(name, '')}.",
            where=name,
            way_out=f"give {said}",
        )
    if name in _BY_NAME and isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
        raise InvalidLoraError(f"{name} has a key that is no text.", where=name, way_out="give names of modules")
    if any(isinstance(number, float) and not isfinite(number) for number in _numbers(value)):
        raise InvalidLoraError(f"{name} holds no finite number.", where=name, way_out="give one that JSON can hold")
    if kinds and list in kinds and isinstance(value, _NAMES):
        return _list(name, value)
    return value


def _numbers(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, Mapping) else (value,)


SAID: Mapping[type, str] = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false", Mapping: "an object",
    dict: "an object", **dict.fromkeys(_NAMES, "a list"),
}  # fmt: skip


def kinds_in_words(kinds: Iterable[type]) -> str:
    """What one may give, each once; a number may be whole."""
    words = dict.fromkeys(SAID[kind] for kind in kinds)
    return " or ".join(word for word in words if word != SAID[int] or SAID[float] not in words)


_ONLY_PYTHON = {tuple: "a tuple", set: "a set", frozenset: "a set"}


def _said(value: Any) -> str:
    kinds = (*_ONLY_PYTHON.items(), *SAID.items())
    return next(
        (said for kind, said in kinds if type(value) is kind or kind is Mapping and isinstance(value, kind)),
        f"a {type(value).__name__}",
    )


_ITEMS: Mapping[str, type | tuple[type, ...]] = {
    "layers_to_transform": int,
    "trainable_token_indices": int,
    "alora_invocation_tokens": int,
    "layer_replication": (list, tuple),
}


def _list(name: str, value: Collection[Any]) -> tuple[Any, ...]:
    wanted = _ITEMS.get(name, str)
    for item in value:
        fine = isinstance(item, wanted) and not isinstance(item, bool)
        if fine and name == "layer_replication":
            fine = all(isinstance(end, int) for end in item)
        if not fine:
            way_out = "give numbers" if wanted is int else "give names" if wanted is str else "give pairs of numbers"
            raise InvalidLoraError(f"{name} holds {str(item)[:_MAX_TEXT]!r}.", where=name, way_out=way_out)
    return tuple(value)
