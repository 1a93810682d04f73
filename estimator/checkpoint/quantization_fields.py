"""What `quantization_config` may hold, as far as sizes are read from it: types and bounds, before any of it is used."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

from estimator.errors import MalformedConfigError

_MOST = 2**20  # bits, codebooks, elements of a group


def _whole(value: Any) -> bool:
    return type(value) is int and 0 < value <= _MOST


def _group(value: Any) -> bool:
    return value == -1 or _whole(value)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_text, value))


def _lists_of_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_texts, value))


def _block(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_whole, value))


def _object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _objects(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_object, value.values()))


Rules = Mapping[str, tuple[Callable[[Any], bool], str]]
_NUMBER, _GROUP = (_whole, "a whole number above nought"), (_group, "-1 or a whole number above nought")
_NAMES, _OBJECT = (_texts, "a list of names"), (_object, "an object")
_ANYWHERE: Rules = {
    **dict.fromkeys(("bits", "w_bit", "num_bits", "nbits_per_codebook", "num_codebooks"), _NUMBER),
    **dict.fromkeys(("in_group_size", "out_group_size"), _NUMBER),
    **dict.fromkeys(("group_size", "q_group_size"), _GROUP),
    **dict.fromkeys(("weight_block_size", "block_structure"), (_block, "two whole numbers above nought")),
}
_TOP: Rules = {
    **_ANYWHERE,
    **dict.fromkeys(("modules_to_not_convert", "llm_int8_skip_modules", "ignored_layers", "ignore"), _NAMES),
    **dict.fromkeys(("skip_modules", "linear_weights_not_to_quantize", "modules_to_convert"), _NAMES),
    "modules_in_block_to_quantize": (_lists_of_texts, "a list of lists of names"),
    "block_name_to_quantize": (lambda value: _text(value) or _texts(value), "a name or a list of names"),
    **dict.fromkeys(("dynamic", "extra_config"), (_object, "an object")),
    **dict.fromkeys(("config_groups", "module_quant_configs"), (_objects, "an object of objects")),
    "quant_config": _OBJECT,
}
_HQQ_BITS = ("8", "6", "5", "4", "3", "2", "1.58", "1")  # hqq 0.2.8.post1, `Quantizer.SUPPORTED_BITS`
_STRATEGIES = ("tensor", "channel", "group", "block", "token", "tensor_group", "attn_head")
_IN_A_PART: Rules = {
    **_ANYWHERE,
    "strategy": (lambda value: value in _STRATEGIES, f"one of {', '.join(_STRATEGIES)}"),
    "type": (lambda value: value in ("int", "float"), "int or float"),
}
_OF_HQQ: Rules = {
    "nbits": (lambda value: repr(value) in _HQQ_BITS, f"one of {', '.join(_HQQ_BITS)}"),
    "group_size": _NUMBER,
    "axis": (lambda value: repr(value) in ("0", "1"), "0 or 1"),
}
_IN_A_GROUP: Rules = {
    "targets": _NAMES,
    **dict.fromkeys(("weights", "input_activations", "output_activations"), _OBJECT),
}


def check_fields(fields: Mapping[str, Any]) -> None:
    """Raises MalformedConfigError for a field that no quantiser of transformers could read."""
    _check(fields, _TOP, "")
    for name, group in (fields.get("config_groups") or {}).items():
        _check(group, _IN_A_GROUP, f"config_groups.{str(name)[:40]}.")
        for part in ("weights", "input_activations", "output_activations"):
            inner = group.get(part) or {}
            _check(inner, _IN_A_PART, f"config_groups.{str(name)[:40]}.{part}.", never_null=("num_bits",))
    of_layers = (fields.get(name) or {} for name in ("dynamic", "extra_config", "module_quant_configs"))
    for by_layer in (fields, *of_layers):  # the first: MLX's
        for name, own in by_layer.items():
            if isinstance(own, Mapping):
                _check(own, _ANYWHERE, f"{str(name)[:60]}.")
    of_all = fields.get("quant_config") or {}
    by_tag = {f"quant_config.{str(tag)[:60]}": own for tag, own in of_all.items() if isinstance(own, Mapping)}
    for within, own in {"quant_config": of_all, **by_tag}.items():
        _check(own, {"weight_quant_params": _OBJECT}, f"{within}.")
        _check(own.get("weight_quant_params") or {}, _OF_HQQ, f"{within}.weight_quant_params.")


def check_spared(fields: Mapping[str, Any]) -> None:
    """The same of a quantiser whose layout is not known, and of which no other field is read."""
    _check(fields, {"modules_to_not_convert": _NAMES}, "")


def _check(fields: Mapping[str, Any], rules: Rules, within: str, *, never_null: Container[str] = ()) -> None:
    """`never_null`: what may not be null; nearly every field may, and is as if it were not there."""
    for name in rules.keys() & fields.keys():
        holds, wanted = rules[name]
        if (fields[name] is not None or name in never_null) and not holds(fields[name]):
            what = f"{within}{name} of quantization_config is {repr(fields[name])[:60]}, not {wanted}."
            raise MalformedConfigError(
                what, where="quantization_config in config.json", way_out="mend it, or fetch config.json again"
            )
