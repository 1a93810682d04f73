"""A class's formulas: learnt from experiments, tried on configs that were kept apart."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import AutoConfig

from estimator.architecture.config_fields import OVERRIDES
from estimator.architecture.learning.changing import is_word
from estimator.architecture.learning.experiments import Build, Experiments
from estimator.architecture.learning.fields_used import paths_of
from estimator.architecture.learning.filled_in import of_fields, plain_default
from estimator.architecture.learning.fit_class import UNKNOWN, Glimpse, Learner, Unresolved
from estimator.architecture.learning.idle import fixed, untried_sizes, widened
from estimator.architecture.learning.older import empty, longer, outside, replaced, split
from estimator.architecture.learning.taken import NOTHING, Taken, taken_by
from estimator.architecture.learning.tell import Teller, is_told
from estimator.architecture.learning.trial import difference, ruled
from estimator.architecture.learning.written import general
from estimator.architecture.surveying import tiny
from estimator.architecture.surveying.observe import BUILD_DTYPE
from estimator.architecture.surveying.survey import activations
from estimator.architecture.surveying.tie_patterns import agreed, tie_pairs, ties_hold

_ROUNDS, _ADDED, _FEW = 10, 4, (1, 2, 3, 4)
_RARE = f"Unfit: {UNKNOWN}"  # of a size, too few random configs told
_NEVER = ("_token_id", "_token_index", "_ids", "pretraining_tp", "problem_type", "_attn_implementation")  # size nothing


def learn(name: str) -> tuple[dict[str, Any] | None, str]:
    """The class's facts, or None and why not."""
    torch.set_default_dtype(BUILD_DTYPE)
    taken = taken_by(name)
    facts, reason = _learnt(name, taken)
    if facts is None and taken.values:
        facts, reason = _learnt(name, NOTHING._replace(aliases=taken.aliases))
    if facts is not None:
        known = facts["rules"].keys() | facts["seen"].keys() | paths_of(facts)
        unknown = {path for path, made in taken.effects.items() if made & known or any(map(_overrides, made))}
        unknown = (unknown | taken.unclear) - known
        unknown -= {alias for aliases in facts["aliases"].values() for alias in aliases}
        facts |= {"unknown": sorted(unknown)} if unknown else {}
        further(name, facts)
    return facts, reason


def further(name: str, facts: dict[str, Any]) -> None:
    """Puts in what needs no formulas: values under which they hold, older spellings that the class takes."""
    facts["seen"] = widened(name, facts)
    _forget_constants(facts)
    for path, number in fixed(name, facts).items():
        facts["rules"][path], facts["seen"][path] = {"absent": {"is": number}}, [str(number)]
    for path in empty(name, facts):
        facts["rules"][path]["empty"] = True
    for path in split(name, facts):
        facts["rules"].setdefault(path, {})["split"] = "|"
    others = ("outside", outside(name, facts)), ("replaced", replaced(name)), ("longer", longer(name, facts))
    facts |= {key: found for key, found in others if found}
    unknown = set(facts.pop("unknown", ())) - {f"{section}_dict" for section in facts.get("replaced", ())}
    unknown |= untried_sizes(name) - facts["rules"].keys() - facts["seen"].keys()
    facts |= {"unknown": sorted(unknown)} if unknown else {}


def _forget_constants(facts: Mapping[str, Any]) -> None:
    """A buffer's size that is one number wherever a field is there that may be any: seen with too few of them."""
    sizes = [size for node in facts["n"] for slot in node[3] for size in slot[2] if isinstance(size, list)]
    for option in (option for size in sizes for option in size):
        if type(option[1]) is int and option[0][:1] == "?" and "#" in facts["seen"].get(option[0][1:], ()):
            option[1] = UNKNOWN


def _overrides(path: str) -> bool:
    return path.rpartition(".")[2] == OVERRIDES


def _learnt(name: str, taken: Taken) -> tuple[dict[str, Any] | None, str]:
    seen = Experiments(name, taken)
    seen.run()
    known, reason = list(seen.builds), ""
    answer: dict[str, Any] | None = None  # right wherever it answers
    asked: list[Build] = []
    for round_ in range(_ROUNDS):
        try:
            facts = _facts(seen, known)
        except (Unresolved, ValueError) as error:
            reason = f"{type(error).__name__} {error}"
            break
        if round_ == _ROUNDS - 1:
            _forget_buffers(facts)
        found = [(one, difference(name, facts, one)) for one in seen.fresh]
        wrong = [(one, why) for one, why in found if why and not why.startswith("Unfit")]
        if not wrong and any(not why for _, why in found):
            answer, reason = facts, ""
            rare = [one for one, why in found if why == _RARE and one not in asked]
            if not rare:
                break
            asked.append(rare[0])
            known += seen.alike(rare[0])
            continue
        reason = (wrong or found)[0][1]
        by_fault = {why: one for one, why in reversed(wrong or found) if one not in known}
        added = list(by_fault.values())[-_ADDED:]
        if not added:
            break
        known += added
    if answer is None:
        return None, reason
    _leave_to_the_rule(name, answer, [*seen.builds, *seen.fresh])
    return answer, ""


def _forget_buffers(facts: Mapping[str, Any]) -> None:
    """Sizes of buffers that no formula has hit: answers say that they are unknown."""
    for node in facts["n"]:
        for slot in node[3]:
            slot[2] = [size if isinstance(size, int) else UNKNOWN for size in slot[2]]


def _leave_to_the_rule(name: str, facts: Mapping[str, Any], builds: Sequence[Build]) -> None:
    """Forgets formulas of rotary frequencies that buffers.py sizes as well: it reads what few experiments vary. Those
    that may be scaled keep their first values beside them: most builds are enough there, as mixes vary what is scaled.

    Where a switch stands for a head's size, nobody's model is built.
    """
    builds = [
        one
        for one in builds
        if not any(path.endswith("head_dim") and type(value) is bool for path, value in one.at.values.items())
    ]
    for node in facts["n"]:
        slots = [slot for slot in node[3] if slot[0].endswith("inv_freq")]
        sizes = [slot[2] for slot in slots]
        for slot in slots:
            slot[2] = [UNKNOWN] * len(slot[2])
        scaled = any(slot[0].endswith("original_inv_freq") for slot in slots)
        if slots and not _ruled_enough(scaled, [ruled(name, facts, one) for one in builds]):
            for slot, size in zip(slots, sizes, strict=True):
                slot[2] = size


def _ruled_enough(scaled: bool, said: Sequence[bool]) -> bool:
    return 2 * sum(said) > len(said) if scaled else all(said)


def _facts(seen: Experiments, builds: Sequence[Build]) -> dict[str, Any]:
    """What the builds say. Raises Unresolved or ValueError where nothing explains them."""
    teller = Teller([one.at for one in builds], seen.comparisons, seen.reads)
    counts = {text for how in seen.lengths for text in general(how)}
    counts |= {text.replace("[#]", "[#//2]") for text in counts if "[#]" in text}
    counts |= {f"max(0,{text})" for text in counts if "-" in text}
    plain = sorted((text for text in counts if not set(text) & set("#^")), key=lambda text: (len(text), text))
    teller.learn((sign, text, number) for text in plain for number in _FEW for sign in ("==", ">"))
    learner = Learner(teller, sorted(counts, key=lambda text: (len(text), text)), activations())
    learner.node([Glimpse(one.seen, one.at) for one in builds], "")
    if learner.lost:
        raise Unresolved(learner.lost[0])
    config = tiny.make(seen.name, builds[0].fields)
    facts: dict[str, Any] = {
        "n": [json.loads(node) for node in learner.nodes],
        "types": tiny.config_types(seen.name),
        "ties": _ties(builds, learner),
        **{key: _embedding(at, builds, teller) for at, key in enumerate(("in", "out"))},
    }
    if (labels := plain_default(seen.name, "num_labels")) not in (None, 2):
        facts["labels"] = labels
    paths = paths_of(facts) | {path for path in seen.reads if _matters(path, builds)}
    if getattr(config, "tie_word_embeddings", None) is not None:
        paths.add("tie_word_embeddings")
    paths = paths - (seen.free - paths_of(facts)) | {f"{section}model_type" for section in sections(config)}
    return facts | of_fields(seen, config, paths, builds, learner)


def sections(config: Any, prefix: str = "") -> list[str]:
    """The nested configs that may be of any model type, as prefixes of paths."""
    found = []
    for key, value in tiny.sub_configs(config).items():
        if config.sub_configs.get(key) is AutoConfig:
            found.append(f"{prefix}{key}.")
        found += sections(value, f"{prefix}{key}.")
    return found


def _embedding(at: int, builds: Sequence[Build], teller: Teller) -> list[list[Any]]:
    groups: dict[str, list[Any]] = {}
    for one in builds:
        groups.setdefault(json.dumps(one.embeddings[at]), []).append(one.at)
    options = teller.options(groups)
    if options is None:
        raise ValueError(f"embedding {list(groups)}")
    return [[condition, json.loads(value)] for condition, value in options]


def _matters(path: str, builds: Sequence[Any]) -> bool:
    """Whether a field that the model reads is a switch, a text or empty somewhere: its values have to be known ones."""
    return is_told(path) and not path.endswith(_NEVER) and any(is_word(one.at.values.get(path, 0)) for one in builds)


def _in_turn(target: str, source: str, builds: Sequence[Build], learner: Learner) -> list[Any]:
    """How many modules the others share in turn, where they do."""
    if "%" not in source:
        return []
    pattern = re.compile(re.escape(target).replace(r"\*", r"\d+"))
    counts = [
        (one.at, len({found.group() for name in one.ties.values() if (found := pattern.match(name))})) for one in builds
    ]
    counts = [(at, count) for at, count in counts if count]
    size = learner.fitter.fit([at for at, _ in counts], [count for _, count in counts])
    if size is None:
        raise ValueError(f"how many share {target}")
    return [size]


def _ties(builds: Sequence[Build], learner: Learner) -> list[list[Any]]:
    """[parameter or module, the one that it shares, condition]: indices as "*"; fourth, how many share in turn."""
    teller = learner.teller
    names = [set(one.seen.names()) for one in builds]
    patterns = agreed([tie_pairs(one.ties, there) for one, there in zip(builds, names, strict=True)])
    found = []
    for target, sources in patterns.items():
        for source in sources:
            holds = [ties_hold(target, source, one.ties, there) for one, there in zip(builds, names, strict=True)]
            yes, no = ([one.at for one, said in zip(builds, holds, strict=True) if said is wanted]
                       for wanted in (True, False))  # fmt: skip
            condition = teller.condition(yes, no)
            if condition is None:
                raise ValueError(f"tie of {target}")
            found.append([target, source, condition, *_in_turn(target, source, builds, learner)])
    return found
