"""The fields of a config.json as transformers' config class would fill them in, and whether formulas know them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from estimator.architecture.conditions import Lookup, written
from estimator.architecture.formula import Unfit, by_default
from estimator.dtypes import config_dtype

MISSING = object()
TIE = "tie_word_embeddings"


def stated_dtype(config: Mapping[str, Any]) -> str | None:
    """The dtype that config.json names, for the whole or for its text model; None where it names none."""
    text = config.get("text_config")
    return config_dtype(config) or (config_dtype(text) if isinstance(text, Mapping) else None)


def lookup_for(config: Mapping[str, Any], facts: Mapping[str, Any], num_labels: int | None = None) -> Lookup:
    """Reads a field as the config class would set it. Raises Unfit where it is missing and no default is known."""
    known: dict[str, Any] = {}
    aliases, rules, seen = facts["aliases"], facts["rules"], facts["seen"]

    def lookup(path: str) -> Any:
        if path not in known:
            section, _, leaf = path.rpartition(".")
            known[path] = labels(section) if leaf == "num_labels" else found(path)
        return known[path]

    def labels(section: str) -> Any:
        default = facts.get("labels", 2) if not section else 2
        return labels_of(get(config, section), num_labels, default)

    def found(path: str) -> Any:
        ignored = "ignored" in rules.get(path, ())
        value = MISSING if ignored else get(config, path)
        for alias in () if ignored else aliases.get(path, ()):
            other = get(config, alias)
            if MISSING not in (value, other) and value != other:
                raise Unfit(f"{path} is {value!r}, {alias}, which is the same, {other!r}")
            value = other if value is MISSING else value
        known = rules.get(path, {})
        if value is False and _turns(known):
            value = MISSING
        if value is not MISSING and value is not None:
            if isinstance(value, list) and known.keys() & {"renamed", "last"}:
                words = known.get("renamed", {})
                value = [words.get(one, one) if isinstance(one, str) else one for one in value]
                return [*value[:-1], known.get("last", value[-1])] if value else value
            return True if isinstance(value, Mapping) else value
        rule = known.get("null" if value is None else "absent")
        if "alone" in known and get(config, path.partition(".")[0]) in (MISSING, None):
            rule = known["alone"]
        if rule is None or "unknown" in rule:
            if value is None and "null" in seen.get(path, ()):
                return None
            raise Unfit(f"{path} is {'null' if value is None else 'missing'}")
        return by_default(rule, lookup)

    return lookup


def tie_of(config: Mapping[str, Any], facts: Mapping[str, Any] | None) -> Any:
    """`tie_word_embeddings` as the class has it at run time; None where its formulas do not tell."""
    if facts is None or TIE not in facts["rules"]:
        return None
    try:
        return lookup_for(config, facts)(TIE)
    except Unfit:
        return None


def _turns(rule: Mapping[str, Any]) -> bool:
    """Whether the class turns a switch on that config.json has off, as it does where the file says nothing: what older
    files kept in the text section (`if not self.tie_word_embeddings and self.text_config.tie_word_embeddings`).
    """
    return any(value is True for _, value in rule.get("absent", {}).get("choice", ()))


def labels_of(config: Any, num_labels: int | None, default: Any) -> Any:
    """How many labels: `num_labels` of the request, then of the config, then its names of labels, then the default.

    transformers 5.23.0, PreTrainedConfig: a `num_labels` in config.json is set after `id2label`, and replaces it.
    """
    if num_labels is not None:
        return num_labels
    if not isinstance(config, Mapping):
        return default
    labels, said = config.get("id2label"), config.get("num_labels")
    if said is not None:
        return said
    return len(labels) if isinstance(labels, Mapping) else default


def get(config: Any, path: str) -> Any:
    """What stands at a dotted path; MISSING where nothing does."""
    for key in path.split(".") if path else ():
        if not isinstance(config, Mapping) or key not in config:
            return MISSING
        config = config[key]
    return config


def check_nesting(facts: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raises Unfit where a field is there whose effect is not known: an older one that no formula explains, a list of
    objects, or a tower's fields at the top of an old config, where which the class takes over was not tried.
    """
    for path, value in config.items():
        if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            raise Unfit(f"what {path} decides is not known")
    for path in facts.get("unknown", ()):
        if get(config, path) not in (MISSING, None):
            raise Unfit(f"what {path} decides is not known")
    read = {*facts["rules"], *facts["seen"]}
    for section, held in (("", config), *((f"{key}.", value) for key, value in config.items())):
        if isinstance(held, Mapping):
            _check_overrides(read, section, held.get("per_layer_config"))
    for path, said in config.items():
        if path.endswith("_config_dict") and isinstance(said, Mapping):
            _check_twice_said(read, path, said, config.get(path.removesuffix("_dict")))
    for path in facts["rules"]:
        parent, _, leaf = path.rpartition(".")
        if parent and leaf in config and get(config, parent) is MISSING:
            raise Unfit(f"{parent} is missing, {leaf} stands outside it")


def _check_overrides(read: Collection[str], section: str, overrides: Any) -> None:
    """Fields that single layers have otherwise: transformers 5.23.0, integrations/heterogeneity."""
    layers = overrides.values() if isinstance(overrides, Mapping) else (overrides,) if overrides else ()
    for layer in layers:
        for field in layer if isinstance(layer, Mapping) else ("skip",):
            if field == "skip" or section + field in read:
                raise Unfit(f"{section}per_layer_config gives layers a {field} of their own")


def _check_twice_said(read: Collection[str], path: str, said: Mapping[str, Any], section: Any) -> None:
    """CLIP's kin let `text_config_dict` overrule `text_config`, with its defaults too (CLIPConfig.__post_init__)."""
    before = path.removesuffix("_dict") + "."
    for field in (name.removeprefix(before) for name in read if name.startswith(before)):
        if not isinstance(section, Mapping) or get(section, field) != get(said, field):
            raise Unfit(f"{path} overrules {before[:-1]}, and has another {field}")


def check_region(facts: Mapping[str, Any], lookup: Lookup, sections: Sequence[str] = ()) -> None:
    """Raises Unfit where a switch or text has a value that was never tried. Sections are towers of another kind."""
    for path, values in facts["seen"].items():
        if path.startswith(tuple(f"{section}." for section in sections)):
            continue
        value = lookup(path)
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if (written(one) if one is None or isinstance(one, (bool, str)) else "#") not in values:
                raise Unfit(f"{path} is {one!r}, which is not among the values that were tried")
