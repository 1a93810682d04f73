"""What LoraConfig refuses before it has seen a model.

peft 0.21.2: LoraConfig.__post_init__ and its sub-configs (peft/tuners/lora/config.py), PeftConfigMixin.__post_init__
(peft/config.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from estimator.errors import InvalidLoraError, UnsupportedError
from estimator.lora.adalora import check_adalora
from estimator.request.lora_config import TASK_TYPES, LoraConfig


def check_config(config: LoraConfig) -> None:
    """Raises InvalidLoraError for what PEFT refuses, UnsupportedError for other methods than LoRA and AdaLoRA."""
    if config.peft_type not in ("LORA", "ADALORA"):
        raise UnsupportedError(
            f"peft_type {str(config.peft_type)[:60]!r} is not answered: this tool knows LORA and ADALORA.",
            where="peft_type of the adapter's config",
            way_out="give a LoRA config",
        )
    for broken, where, what, way_out in _checks(config):
        if broken:
            raise InvalidLoraError(what, where=where, way_out=way_out)
    for name, rules in _SUB_CONFIGS.items():
        _check_sub_config(name, getattr(config, name), rules)
    if config.peft_type == "ADALORA":
        check_adalora(config)
    if config.megatron_config:
        _refuse_megatron(config)


Check = tuple[bool, str, str, str]  # broken, where, what, way out


def _checks(config: LoraConfig) -> tuple[Check, ...]:
    regex, loftq = isinstance(config.target_modules, str), config.init_lora_weights == "loftq"
    return (
        (config.task_type is not None and config.task_type not in TASK_TYPES, "task_type",
         f"there is no task type {str(config.task_type)[:60]!r}.", "one of " + ", ".join(TASK_TYPES)),
        (config.lora_dropout > 1, "lora_dropout",
         "lora_dropout is above 1; it is a probability.", "between 0 and 1"),
        (isinstance(config.target_parameters, str), "target_parameters",
         "target_parameters is a text; PEFT takes a list of names and no regular expression.",
         "write a list, such as [experts.gate_up_proj]"),
        (regex and config.layers_to_transform is not None, "layers_to_transform",
         "layers_to_transform cannot be used where target_modules is a text (a regular expression or all-linear).",
         r"put the layers into the expression, such as .*layers\.[0-3]\..*q_proj, or target a list of names"),
        (regex and config.layers_pattern is not None, "layers_pattern",
         "layers_pattern cannot be used where target_modules is a text (a regular expression or all-linear).",
         "target a list of names"),
        (bool(config.layers_pattern) and config.layers_to_transform is None, "layers_pattern",
         "layers_pattern says where layers are counted, but no layers_to_transform are given.",
         "give layers_to_transform as well"),
        (bool(config.use_dora and config.megatron_config), "use_dora",
         "DoRA does not work with Megatron's layers.", "leave out use_dora or megatron_config"),
        (loftq and not config.loftq_config, "loftq_config",
         "init_lora_weights is loftq, but loftq_config is empty.",
         "give loftq_config, such as {loftq_bits: 4, loftq_iter: 1}"),
        (loftq and bool(config.loftq_config) and not _is_loftq(config.loftq_config), "loftq_config",
         f"loftq_config is {str(dict(config.loftq_config))[:60]}; PEFT needs both of its fields.",
         "give loftq_bits (4 or 8) and loftq_iter (1 or more)"),
        (bool(config.lora_bias) and config.init_lora_weights not in (True, False), "lora_bias",
         "lora_bias works with init_lora_weights true or false alone, not "
         f"{str(config.init_lora_weights)[:40]!r}.",
         "leave out lora_bias or the special initialisation"),
        (bool(config.lora_bias and config.use_dora), "lora_bias",
         "lora_bias does not work with DoRA.", "leave out one of them"),
    )  # fmt: skip


def _is_loftq(given: Mapping[str, Any]) -> bool:
    """loftq_init (peft/utils/loftq_utils.py)."""
    iterations = given.get("loftq_iter")
    return given.get("loftq_bits") in (4, 8) and isinstance(iterations, int) and iterations > 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_RANK


def _are_names(value: Any) -> bool:
    """What a set can be made of and looked up in a name."""
    return not value or all(isinstance(name, str) for name in value)


Rule = tuple[str, Any, Callable[[Any], bool], str]  # field, default, holds, what is allowed

# Sub-configs: every field that __post_init__ looks at.
_SUB_CONFIGS: Mapping[str, tuple[Rule, ...]] = {
    "velora_config": (
        ("num_groups", 64, _is_count, "a whole positive number"),
        ("scale", 1.0, lambda n: n > 0, "a positive number"),
        ("init_type", "batch_average", lambda t: t in ("batch_average_once", "batch_average", "random"),
         "batch_average_once, batch_average or random"),
    ),
    "eva_config": (
        ("rho", 2.0, lambda n: n >= 1, "1 or more"),
        ("tau", 0.99, lambda n: 0 <= n <= 1, "between 0 and 1"),
    ),
    "kasa_config": (
        ("beta", 1e-4, lambda n: n >= 0, "0 or more"),
        ("gamma", 1e-3, lambda n: n >= 0, "0 or more"),
    ),
    "arrow_config": (
        ("top_k", 3, lambda n: n > 0, "a positive number"),
        ("router_temperature", 1.0, lambda n: n > 0, "a positive number"),
    ),
    "monteclora_config": (
        ("num_samples", 8, _is_count, "a whole positive number"),
        ("dirichlet_prior", 0.1, lambda n: n > 0, "a positive number"),
        ("buffer_size", 150, _is_count, "a whole positive number"),
    ),
    "corda_config": (),
    "lora_ga_config": (),
    "use_bdlora": (
        ("target_modules_bd_a", None, _are_names, "a list of names"),
        ("target_modules_bd_b", None, _are_names, "a list of names"),
    ),
}  # fmt: skip
# LoraConfig.__post_init__ hands this one on as it is; of all others it leaves out what it does not know.
_MONTECLORA = frozenset(
    ("num_samples", "use_entropy", "dirichlet_prior", "sample_scaler", "kl_loss_weight", "buffer_size")
)


def _check_sub_config(name: str, value: Any, rules: tuple[Rule, ...]) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise InvalidLoraError(
            f"{name} is {str(value)[:60]!r}; PEFT takes an object.", where=name, way_out="give its fields, or null"
        )
    for field, default, holds, allowed in rules:
        given = value.get(field, default)
        try:
            fine = holds(given)
        except TypeError:
            fine = False
        if not fine:
            raise InvalidLoraError(f"{field} is {str(given)[:60]!r}.", where=f"{name}.{field}", way_out=allowed)
    if name == "use_bdlora":
        _check_bdlora(value)
    if name == "monteclora_config" and (unknown := sorted(map(str, value.keys() - _MONTECLORA))):
        raise InvalidLoraError(
            f"{unknown[0][:60]} is no field of monteclora_config, and PEFT takes no other.",
            where=f"monteclora_config.{unknown[0][:60]}",
            way_out="one of " + ", ".join(sorted(_MONTECLORA)),
        )


def _check_bdlora(value: Mapping[str, Any]) -> None:
    both = set(value.get("target_modules_bd_a") or ()) & set(value.get("target_modules_bd_b") or ())
    if both:
        raise InvalidLoraError(
            f"{', '.join(sorted(map(str, both)))[:200]} stand in target_modules_bd_a and in target_modules_bd_b.",
            where="use_bdlora",
            way_out="make each module's A or its B block-diagonal",
        )


def _refuse_megatron(config: LoraConfig) -> None:
    """dispatch_megatron imports Megatron's own layers, whose shapes are sharded; PEFT refuses names outside of it."""
    if not str(config.megatron_core).startswith("megatron."):
        raise InvalidLoraError(
            f"megatron_core is {str(config.megatron_core)[:60]!r}; PEFT imports from the package megatron alone.",
            where="megatron_core",
            way_out="leave it at megatron.core",
        )
    raise UnsupportedError(
        "megatron_config asks for Megatron's parallel layers, whose shapes this tool does not know.",
        where="megatron_config",
        way_out="leave out megatron_config",
    )


def check_rank(rank: Any, where: str) -> None:
    """LoraLayer.update_layer. Raises InvalidLoraError for what cannot be the number of rows of a matrix."""
    if isinstance(rank, bool) or not isinstance(rank, int):
        raise InvalidLoraError(
            f"r is {str(rank)[:40]!r}; PEFT needs a whole number.", where=where, way_out="give a number"
        )
    if rank <= 0:
        way_out = "give 1 or more" if where == "r" else "exclude the module instead"
        what = f"r should be a positive number; it is {'negative' if rank else 0}."
        raise InvalidLoraError(what, where=where, way_out=way_out)
    if rank > MAX_RANK:
        raise InvalidLoraError(
            f"r is a number of {int(rank.bit_length() * 0.30103) + 1} digits: no such matrix can be made.",
            where=where,
            way_out="give a smaller r",
        )


MAX_RANK = 2**31 - 1


def check_alpha(alpha: Any, rank: int, where: str) -> None:
    """LoraLayer.update_layer divides alpha by r. Raises InvalidLoraError for what cannot be divided."""
    try:
        alpha / max(rank, 1)
    except (TypeError, OverflowError) as error:
        raise InvalidLoraError(
            f"alpha is {str(alpha)[:40] if not isinstance(alpha, int) else 'a number too large'!r}; PEFT divides it by "
            "r and ends in an error.",
            where=where,
            way_out="give a number",
        ) from error


def check_names(value: Any, where: str) -> None:
    """Raises InvalidLoraError where a list of names is not one."""
    fine = value is None or (
        isinstance(value, (Sequence, set, frozenset))
        and not isinstance(value, str)
        and all(isinstance(v, str) for v in value)
    )
    if not fine:
        raise InvalidLoraError(
            f"{where} is {str(value)[:60]!r}; a list of names belongs there.",
            where=where,
            way_out="write a list of names",
        )
