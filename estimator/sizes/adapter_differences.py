"""Why a real adapter file differs from what its adapter_config.json implies, tensor by tensor.

Both sides are tensors by the name they have in the file. What is named, typed or shaped otherwise comes first; what is
then left over on either side is told by what the config would have to say for it to be right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from estimator.sizes.adapter_causes import (
    EMBEDDINGS_LEFT_OUT,
    EXPERT,
    INDEX,
    OLDER_BIASES,
    PREFIX,
    SAVED_ALONG,
    TOKENS,
    Cause,
    Part,
    Parts,
    differing_dtypes,
    differing_shapes,
    is_embedding,
    older_names,
    plain_names,
    resized_vocabulary,
    total_bytes,
)


def causes_of(implied: Parts, real: Parts, embeddings: Parts, elsewhere: Mapping[str, str] = {}) -> tuple[Cause, ...]:
    """Every difference between the tensors implied and the real ones; () where there is none.

    embeddings: the base's input and output embedding, under the names that they would have in the file. elsewhere:
    names that another class of the same model would give to tensors implied, each with the one that it has here.
    """
    if not real:
        return (Cause("no_tensors", "The file holds no tensor at all.", 0, -total_bytes(implied)),)
    real, causes = plain_names(implied, real)
    real, others = _of_another_class(implied, real, elsewhere)
    causes += others
    real, renamed = older_names(implied, real)
    shared = [name for name in implied if name in real]
    causes += renamed
    causes += differing_dtypes(implied, real, shared)
    causes += differing_shapes(implied, real, shared, embeddings)
    causes += _missing(implied, {name: implied[name] for name in implied if name not in real})
    causes += _extra(implied, {name: real[name] for name in real if name not in implied}, embeddings)
    return tuple(causes)


def _of_another_class(implied: Parts, real: Parts, elsewhere: Mapping[str, str]) -> tuple[Parts, list[Cause]]:
    """The real tensors under the names of this class, where none of those has one."""
    found = {name: elsewhere[name] for name in real if name in elsewhere}
    if not found or not real.keys().isdisjoint(elsewhere.values()):
        return real, []
    old, new = next(iter(found.items()))
    message = (
        f"The names are those of another class of this model, without its head or with one: {old} where this one has "
        f"{new}. PEFT loads none of them."
    )
    renamed = {found.get(name, name): part for name, part in real.items()}
    return renamed, [Cause("names_of_another_class", message, len(found), 0)]


def _missing(implied: Parts, lost: Parts) -> list[Cause]:
    causes = []
    frozen = {name for name in lost if name.endswith(".bias") and name.removesuffix("bias") + "weight" not in implied}
    biases = {name: part for name, part in lost.items() if name in frozen and ".lora_" not in name}
    if any(name.endswith(_WRAPPED_BIAS) and name not in lost for name in implied):
        biases = {}  # those of other layers are there: no release left these out
    if biases:
        causes.append(Cause("older_peft_bias", OLDER_BIASES, len(biases), -total_bytes(biases)))
    along = {name: part for name, part in lost.items() if name.endswith(SAVED_ALONG)}
    if along:
        causes.append(Cause("embeddings_left_out", EMBEDDINGS_LEFT_OUT, len(along), -total_bytes(along)))
    rest = {name: part for name, part in lost.items() if name not in biases and name not in along}
    if rest:
        layers = _missing_layers(implied, rest)
        code = "missing_layers" if layers else "missing_modules"
        message = layers or f"Implied, but not in the file: {_summary(rest)}."
        causes.append(Cause(code, message, len(rest), -total_bytes(rest)))
    return causes


def _missing_layers(implied: Parts, lost: Parts) -> str:
    """What to say where whole layers of one stack are lost, of which others are there, and nothing else is."""
    layers = {name: _layer(name) for name in implied}
    gone = {layers[name] for name in lost}
    there = {layer for name, layer in layers.items() if name not in lost}
    stacks = {stack for stack, _ in gone}
    kept = {int(number) for stack, number in there if stack in stacks and number}
    if len(stacks) > 1 or not kept or not gone.isdisjoint(there):
        return ""
    several = "s" if len(gone) > 1 else ""
    lost_ones = _ranges({int(number) for _, number in gone})
    return (
        f"Nothing of layer{several} {lost_ones} is in the file, and all of {_ranges(kept)}: "
        "adapter_config.json does not say so in layers_to_transform, or names another base."
    )


def _layer(name: str) -> tuple[str, str]:
    """What stands before the first number in a name, and that number."""
    found = INDEX.search(name)
    return (name[: found.start()], found[0]) if found else (name, "")


def _extra(implied: Parts, odd: Parts, embeddings: Parts) -> list[Cause]:
    kinds: dict[str, dict[str, Part]] = defaultdict(dict)
    for name, part in odd.items():
        kinds[_kind_of_extra(name, implied, odd, embeddings)][name] = part
    causes = [
        Cause(code, _EXTRA[code].format(_summary(parts)), len(parts), total_bytes(parts))
        for code, parts in kinds.items()
    ]
    resized = {name for name in embeddings if name in odd and odd[name].shape[:1] != embeddings[name].shape[:1]}
    rows = {(embeddings[name].shape[0], *odd[name].shape[:1]) for name in resized}
    return causes + [resized_vocabulary(*change, len(resized), 0) for change in rows if len(change) == 2]


_EXTRA = {
    "embeddings_saved": "Embeddings are saved along: {}.",
    "experts_one_by_one": "Experts are adapted one by one, as transformers 4 named them: {}.",
    "saved_modules": "Modules are saved whole that adapter_config.json does not name: {}.",
    "extra_modules": "Adapted, but not implied by adapter_config.json on this base: {}.",
    "extra_tensors": "Tensors that belong to no module, and that PEFT does not read: {}.",
    "dora_not_said": "DoRA's magnitudes are in the file, and adapter_config.json does not set use_dora: {}.",
    "lora_bias_not_said": "LoRA's own biases are in the file, and adapter_config.json does not set lora_bias: {}.",
    "bias_not_said": "Biases of the base are in the file, which adapter_config.json's bias does not save: {}.",
    "tokens_not_said": "Trained tokens are in the file that trainable_token_indices in adapter_config.json lacks: {}.",
}
_WRAPPED_BIAS = ".base_layer.bias"
# How a tensor ends, how the one ends without which it stands for nothing, and what the config then does not say.
_OF_ADAPTED = (
    (".lora_magnitude_vector", ".lora_A.weight", "dora_not_said"),
    (".lora_B.bias", ".lora_B.weight", "lora_bias_not_said"),
)


def _kind_of_extra(name: str, implied: Parts, odd: Parts, embeddings: Mapping[str, Part]) -> str:
    names = {*implied, *odd}
    for end, beside, code in _OF_ADAPTED:
        if name.endswith(end) and name.removesuffix(end) + beside in implied:
            return code
    of_odd = name.endswith(SAVED_ALONG) and name.removesuffix(SAVED_ALONG) + ".lora_embedding_A" in odd
    if ".lora_" in name or of_odd:
        return "experts_one_by_one" if EXPERT.search(name) else "extra_modules"
    if name.endswith(TOKENS):
        return "tokens_not_said"
    if is_embedding(name, embeddings):
        return "embeddings_saved"
    if name.endswith(".bias") and name.removesuffix("bias") + "weight" not in names:
        return "bias_not_said"
    return "saved_modules" if name.startswith(PREFIX) and not name.endswith(".alpha") else "extra_tensors"


def _summary(parts: Parts) -> str:
    """The modules' names, their numbers folded where there are several, at most four."""
    names: dict[str, list[str]] = defaultdict(list)
    for name in parts:
        names[INDEX.sub("*", name.removeprefix(PREFIX))].append(name.removeprefix(PREFIX))
    shown = ", ".join(_folded(folded, of) for folded, of in list(names.items())[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more kinds"


def _folded(folded: str, names: list[str]) -> str:
    """`layers.*.q_proj`, its numbers told where there is one to a name: `layers.0-3,7.q_proj`."""
    numbers = [INDEX.findall(name) for name in names]
    if len(names) == 1 or any(len(found) != 1 for found in numbers):
        return names[0] if len(names) == 1 else folded
    return folded.replace("*", _ranges({int(found[0]) for found in numbers}))


def _ranges(numbers: set[int]) -> str:
    """`0-3,7`."""
    starts = sorted(number for number in numbers if number - 1 not in numbers)
    ends = sorted(number for number in numbers if number + 1 not in numbers)
    return ",".join(str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True))
