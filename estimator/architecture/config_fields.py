"""The fields of a config.json as transformers' config class would fill them in, and whether formulas know them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from estimator.architecture.conditions import Lookup, written
from estimator.architecture.formula import Unfit, by_default

MISSING = object()
TIE = "tie_word_embeddings"
LAYER_KINDS = ("layer_types", "mlp_layer_types")
OVERRIDES = "per_layer_config"  # transformers 5.23.0, integrations/heterogeneity


def lookup_for(config: Mapping[str, Any], facts: Mapping[str, Any], num_labels: int | None = None) -> Lookup:
    """Reads a field as the config class would set it. Raises Unfit where it is missing and no default is known."""
    return _Reader(config, facts, num_labels)


class _Reader:
    """The fields of one config.json by dotted path, each worked out once."""

    def __init__(self, config: Mapping[str, Any], facts: Mapping[str, Any], num_labels: int | None) -> None:
        self.said, self.config = _replaced(config, facts), without_overrides(gathered(config, facts), facts)
        self.facts, self.num_labels = facts, num_labels
        self.real = {alias: path for path, names in facts["aliases"].items() for alias in names}
        self.known: dict[str, Any] = {}

    def __call__(self, path: str) -> Any:
        path = self.real.get(path, path)  # what holds the model as a tower asks by the common name
        if path not in self.known:
            section, _, leaf = path.rpartition(".")
            self.known[path] = self._labels(section) if leaf == "num_labels" else self._found(path)
        return self.known[path]

    def _labels(self, section: str) -> Any:
        default = self.facts.get("labels", 2) if not section else 2
        return labels_of(get(self.config, section), self.num_labels, default)

    def _found(self, path: str) -> Any:
        rule = self.facts["rules"].get(path, {})
        value = MISSING if "ignored" in rule else self._called(path)
        if (value is False and _turns(rule)) or (value == [] and "empty" in rule):
            value = MISSING
        if isinstance(value, str) and "split" in rule:
            value = value.split(rule["split"])
        if value is MISSING or value is None:
            return self._default(path, value, rule)
        if isinstance(value, list) and rule.keys() & {"renamed", "last"}:
            return _reworded(value, rule)
        return True if isinstance(value, Mapping) else value

    def _called(self, path: str) -> Any:
        """What stands there, or under another name, which wins: PreTrainedConfig.__post_init__ sets it last."""
        first, *later = names_in_turn(self.facts, path)
        value = said = get(self.config, first)
        for alias in later:
            other = get(self.config, alias)
            if other is MISSING or other == value:
                continue
            if value is not MISSING and (None in (value, other) or value is not said):
                raise Unfit(f"{path} is {value!r}, {alias}, which is the same, {other!r}")
            value = other
        return value

    def _default(self, path: str, value: Any, rule: Mapping[str, Any]) -> Any:
        """In the place of what is missing or null."""
        default = rule.get("null" if value is None else "absent")
        if "alone" in rule and (section := _left_out(self.said, path)):
            default = rule["alone"] if "." not in section else None
        if default is None or "unknown" in default:
            if value is None and "null" in self.facts["seen"].get(path, ()):
                return None
            raise Unfit(f"{path} is {'null' if value is None else 'missing'}")
        return by_default(default, self._derived)

    def _derived(self, path: str) -> Any:
        """What a default is worked out from: config classes take a field's other name after they have done so."""
        for alias in self.facts["aliases"].get(path, ()):
            if get(self.config, alias) not in (MISSING, get(self.config, path)):
                raise Unfit(f"{path} is called {alias}, which defaults are not worked out from")
        return self(path)


def _reworded(value: list[Any], rule: Mapping[str, Any]) -> list[Any]:
    words = rule.get("renamed", {})
    value = [words.get(one, one) if isinstance(one, str) else one for one in value]
    return [*value[:-1], rule.get("last", value[-1])] if value else value


def names_in_turn(facts: Mapping[str, Any], path: str) -> Sequence[str]:
    """All names of a field, the declared one first: what stands under another is set later, and wins.

    The facts tell the field's own name among the others where it is no declared one: `num_experts` is declared in
    Qwen3-MoE, whose `attribute_map` makes `num_local_experts` of it.
    """
    others = facts["aliases"].get(path, ())
    return others if path in others else (path, *others)


def tie_of(config: Mapping[str, Any], facts: Mapping[str, Any] | None) -> Any:
    """`tie_word_embeddings` as the class has it at run time; None where its formulas do not tell."""
    if facts is None or TIE not in facts["rules"]:
        return None
    try:
        return lookup_for(config, facts)(TIE)
    except Unfit:
        return None


def unties(config: Mapping[str, Any], facts: Mapping[str, Any] | None) -> bool:
    """Whether each of several `tie_word_embeddings` that the class reads is false: nothing declared is tied then
    (transformers 5.23.0, `PreTrainedModel.get_expanded_tied_weights_keys`). What one of them does, formulas say.
    """
    if not facts or get(config, TIE) is not False:
        return False
    paths = [path for path in {**facts["rules"], **facts["seen"]} if path.rpartition(".")[2] == TIE]
    if len(paths) < 2:
        return False
    lookup = lookup_for(config, facts)
    try:
        return not any(lookup(path) for path in paths)
    except Unfit:
        return False


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


def gathered(config: Mapping[str, Any], facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config with its sections as the class has them.

    One that an older config leaves out is made of the fields that the class takes from the top. `text_config_dict`
    stands in the place of `text_config` where CLIP's kin have both (`CLIPConfig.__post_init__`: its defaults too).
    """
    config = _replaced(config, facts)
    for section, leaves in facts.get("outside", {}).items():
        held = {leaf: config[leaf] for leaf in leaves if leaf in config}
        if held and config.get(section) is None:
            config = {**config, section: held}
    return config


def _replaced(config: Mapping[str, Any], facts: Mapping[str, Any]) -> Mapping[str, Any]:
    for section in facts.get("replaced", ()):
        said = config.get(f"{section}_dict")
        config = {**config, section: said} if isinstance(said, Mapping) else config
    return config


def _left_out(config: Mapping[str, Any], path: str) -> str:
    """The outermost section on the way to a field that config.json leaves out; "" where all are there."""
    sections = path.split(".")[:-1]
    ways = (".".join(sections[: end + 1]) for end in range(len(sections)))
    return next((way for way in ways if get(config, way) in (MISSING, None)), "")


def check_nesting(facts: Mapping[str, Any], config: Mapping[str, Any], lookup: Lookup) -> None:
    """Raises Unfit where a field is there whose effect is not known: an older one that no formula explains, a list of
    objects, several layers in the place of one (LLaVA-NeXT's vision_feature_layer, whose outputs its projector takes
    side by side), or a tower's fields at the top of an old config, where which the class takes over was not tried.
    """
    config, read = gathered(config, facts), fields_of(facts)
    for path, value in config.items():
        several = isinstance(value, list) and len(value) > 1 and path.endswith("feature_layer") and path not in read
        if several or (isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value)):
            raise Unfit(f"what {path} decides is not known")
    for path in facts.get("unknown", ()):
        if get(config, path) not in (MISSING, None):
            raise Unfit(f"what {path} decides is not known")
    for path, said in config.items():
        if path.endswith("_config_dict") and isinstance(said, Mapping):
            _check_twice_said(read, path, said, config.get(path.removesuffix("_dict")))
    for section in sections_of(facts):
        if section not in facts.get("outside", ()) and get(config, section) in (MISSING, None):
            _check_outside(facts["rules"], config, section, lookup)


def _check_outside(rules: Mapping[str, Any], config: Mapping[str, Any], section: str, lookup: Lookup) -> None:
    """Raises Unfit where a field of a section that config.json lacks stands beside it."""
    said, beside = get(config, section), get(config, section.rpartition(".")[0])
    for path in rules if isinstance(beside, Mapping) else ():
        parent, _, leaf = path.rpartition(".")
        if parent == section and leaf in beside and leaf != "model_type" and _is_there(section, lookup):
            raise Unfit(f"{section} is {'missing' if said is MISSING else 'null'}, {leaf} stands outside it")


def _is_there(section: str, lookup: Lookup) -> bool:
    """Whether the class has a section that config.json leaves out: DPT has a backbone_config where it is a hybrid."""
    try:
        return lookup(section) is not None
    except Unfit:
        return True


def without_overrides(config: Mapping[str, Any], facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config with the fields that stand for what some layers have otherwise, where a section says it by layer.

    transformers 5.23.0, integrations/heterogeneity: Gemma 4 makes `per_layer_config` of `global_head_dim` and its kin,
    and saves it in their place; one that says nothing of them makes all layers alike (`Gemma4TextConfig`). Raises Unfit
    where layers differ in a field that no such field stands for.
    """
    read = fields_of(facts)
    for section in ("", *(key for key, value in config.items() if isinstance(value, Mapping))):
        held = config[section] if section else config
        if OVERRIDES in held:
            overrides = {} if held[OVERRIDES] is None else held[OVERRIDES]
            before = f"{section}." if section else ""
            told = {**held, **_in_common(overrides, {path.removeprefix(before) for path in read}, held)}
            config = {**config, section: told} if section else told
    return config


def _in_common(overrides: Any, read: Collection[str], held: Mapping[str, Any]) -> dict[str, Any]:
    """The value of each `global_...` field that is read, from layers that all differ alike, and are all of one kind."""
    layers: list[Any] = list(overrides.values()) if isinstance(overrides, Mapping) else ["no layer"]
    fields = {field for layer in layers for field in (layer if isinstance(layer, Mapping) else ("skip",))}
    differing = {field for field in fields if field in read or field == "skip"}
    common = {path.replace("global_", ""): path for path in read if "global_" in path and "." not in path}
    lists = [kind for kind in held.values() if isinstance(kind, list)] if isinstance(overrides, Mapping) else []
    kinds = [kind for kind in lists if _are_of_one_kind(overrides, kind)]
    if differing and (differing - common.keys() or not kinds or any(layer != layers[0] for layer in layers)):
        raise Unfit(f"{OVERRIDES} gives layers a {min(differing)} of their own")
    here = {**held, **layers[0]} if differing else held
    return {path: here[field] for field, path in common.items() if field in here}


def _are_of_one_kind(numbers: Mapping[str, Any], kinds: Sequence[Any]) -> bool:
    """Whether a word stands in a list at these places and at no others."""
    places = {int(number) for number in numbers if str(number).isdecimal()}
    words = {str(kinds[place]) for place in places if place < len(kinds)}
    return len(words) == 1 and places == {place for place, word in enumerate(kinds) if str(word) in words}


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
            text = written(one) if one is None or isinstance(one, (bool, str)) else "#" if "#" in values else str(one)
            if text not in values:
                raise Unfit(f"{path} is {str(one)[:80]!r}, which is not among the values that were tried")


def sections_of(facts: Mapping[str, Any]) -> dict[str, None]:
    """The sections whose fields the formulas know, by dotted path, in order; "" for the top."""
    return dict.fromkeys(path.rpartition(".")[0] for path in ("", *facts["rules"]))


def fields_of(facts: Mapping[str, Any]) -> set[str]:
    """The fields on which the class's shapes depend."""
    return {*facts["rules"], *facts["seen"]}


def own_code(config: Mapping[str, Any]) -> bool:
    """Whether config.json names a config's or a model's class that the repository brings itself (`auto_map`)."""
    named = config.get("auto_map")
    return isinstance(named, Mapping) and any(str(key).startswith(("AutoConfig", "AutoModel")) for key in named)
