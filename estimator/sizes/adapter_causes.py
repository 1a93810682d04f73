"""Names, dtypes and shapes in which a real adapter file differs from what its adapter_config.json implies.

Both sides are tensors by the name they have in the file. What older releases and other tools wrote differently is
undone step by step, and each step that changes something is a cause.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from math import prod
from typing import NamedTuple

from estimator.architecture.module import VARIES
from estimator.dtypes import BITS

PREFIX = "base_model.model."
HALVES = ("F16", "BF16")
FLOATS = (*HALVES, "F32", "F64", "F8_E4M3", "F8_E5M2")
EXPERT = re.compile(r"\.experts\.\d+\.")
INDEX = re.compile(r"(?<=\.)\d+(?=\.)")
TOKENS = ".trainable_tokens_delta"
SAVED_ALONG = ".base_layer.weight"  # of an embedding or a head that is itself a target
DOUBLED_PREFIX = (
    f"Every name carries {PREFIX} twice, as of a PEFT model in another: on the base PEFT finds none of them."
)
OLDER_BIASES = "Biases of adapted layers are not in the file: PEFT before 0.12 did not save base_layer.bias."
EMBEDDINGS_LEFT_OUT = (
    "The base's own rows of adapted embeddings are not in the file, as with save_embedding_layers=False."
)


class Cause(NamedTuple):
    """One reason why a file differs from what its config implies."""

    code: str  # stable, snake_case
    message: str
    tensors: int  # how many it accounts for
    bytes: int  # by which it makes the data larger; negative: smaller


class Part(NamedTuple):
    """One tensor of an adapter, real or implied."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return prod(self.shape) * BITS[self.dtype] // 8


Parts = Mapping[str, Part]


def total_bytes(parts: Parts) -> int:
    return sum(part.bytes for part in parts.values())


def plain_names(implied: Parts, real: Parts) -> tuple[Parts, list[Cause]]:
    """The real tensors under the names that PEFT writes today, and what had to be undone."""
    causes = []
    for code, message, undo in _SPELLINGS:
        plain = {undo(name): part for name, part in real.items()}
        more = _known(plain, implied) - _known(real, implied)
        better = more > 0 or (code in _OF_NO_RELEASE and not more) or (code == "no_prefix" and _are_bare(implied, real))
        if len(plain) == len(real) and plain.keys() != real.keys() and better:
            causes.append(Cause(code, message, sum(name not in plain for name in real), 0))
            real = plain
    return real, causes


def _known(parts: Parts, implied: Parts) -> int:
    return sum(name in implied for name in parts)


def _are_bare(implied: Parts, real: Parts) -> bool:
    """Whether no name has the prefix that all should have: no release named them so."""
    return all(name.startswith(PREFIX) for name in implied) and not any(name.startswith(PREFIX) for name in real)


def _without_doubled_prefix(name: str) -> str:
    while name.startswith(PREFIX + PREFIX):
        name = name.removeprefix(PREFIX)
    return name


def _with_prefix(name: str) -> str:
    return name if name.startswith(PREFIX) else PREFIX + name


def _without_default(name: str) -> str:
    return re.sub(r"(\.lora_\w+)\.default(?=\.|$)", r"\1", name)


def _without_adapter_name(name: str) -> str:
    plain = re.sub(r"(\.lora_(?:[AB]|magnitude_vector))\.[^.]+(?=\.(?:weight|bias)$)", r"\1", name)
    return re.sub(r"(\.lora_embedding_[AB])\.[^.]+$|\.modules_to_save(?:\.[^.]+)?(?=\.[^.]+$)", r"\1", plain)


_WRAPPERS = re.compile(r"(?:^module|(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module))\.")

_OF_NO_RELEASE = ("wrapper_names", "doubled_prefix")  # damage, whatever else is of another name
_SPELLINGS = (
    (
        "wrapper_names",
        "The names hold what DDP, FSDP or torch.compile wraps a model in; PEFT would not find these tensors again.",
        lambda name: _WRAPPERS.sub("", name),
    ),
    ("doubled_prefix", DOUBLED_PREFIX, _without_doubled_prefix),
    ("no_prefix", f"The names lack {PREFIX}, which PEFT puts before them.", _with_prefix),
    ("older_peft_names", "The names hold the adapter's own name, default; PEFT reads them all the same.",
     _without_default),
    ("adapter_names", "The names hold the adapter's own name; PEFT would not find these tensors again.",
     _without_adapter_name),
    ("magnitude_names", "DoRA's magnitudes are called weights, as inside PEFT, which reads them all the same.",
     lambda name: name.replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector")),
    ("base_layer_names", "The names hold base_layer, as an adapter saved by hand has them.",
     lambda name: name.replace(".base_layer.", ".")),
)  # fmt: skip


def older_names(implied: Parts, real: Parts) -> tuple[Parts, list[Cause]]:
    """Modules of another name, but the same layers, shapes and matrices, and as many of each.

    A name that other layers keep as it is was not renamed by a release: it is damaged. So is one without the prefix.
    """
    prefix = PREFIX if all(name.startswith(PREFIX) for name in implied) else ""
    kept = {_in_any_layer(name) for name in implied if name in real}
    for key in (_by_leaf, _by_place):
        lost, odd = defaultdict(list), defaultdict(list)
        for name, part in implied.items():
            if name not in real and _in_any_layer(name) not in kept:
                lost[key(name, part)].append(name)
        for name, part in real.items():
            if name not in implied and name.startswith(prefix):
                odd[key(name, part)].append(name)
        alike = [(names, odd[k]) for k, names in lost.items() if len(names) == len(odd.get(k, ()))]
        pairs = {new: old for news, olds in alike for new, old in zip(sorted(news), sorted(olds), strict=True)}
        if pairs and len(pairs) * 2 >= sum(map(len, odd.values())):
            back = {old: new for new, old in pairs.items()}
            new, old = next(iter(pairs.items()))
            message = (
                f"Another release or class of transformers named the modules: {old} where this one has {new}, on "
                "which PEFT loads none of them."
            )
            renamed = {back.get(name, name): part for name, part in real.items()}
            return renamed, [Cause("older_names", message, len(pairs), 0)]
    return real, []


def _in_any_layer(name: str) -> str:
    return INDEX.sub("N", name)


def _by_leaf(name: str, part: Part) -> tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]:
    return tuple(INDEX.findall(name)), tuple(name.split(".")[-3:]), part.shape


def _by_place(name: str, part: Part) -> tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]:
    return tuple(INDEX.findall(name)), tuple(name.split(".")[-2:]), part.shape


def differing_dtypes(implied: Parts, real: Parts, shared: list[str]) -> list[Cause]:
    changes: Counter[tuple[str, str]] = Counter()
    grown: Counter[tuple[str, str]] = Counter()
    for name in shared:
        change = implied[name].dtype, real[name].dtype
        if change[0] != change[1]:
            changes[change] += 1
            elements = prod(real[name].shape)
            grown[change] += elements * (BITS[change[1]] - BITS[change[0]]) // 8
    return [
        Cause(
            _why_dtype(was, is_),
            f"{count} {'tensor is' if count == 1 else 'tensors are'} {is_}; PEFT's own default would have saved {was}.",
            count,
            grown[was, is_],
        )
        for (was, is_), count in changes.items()
    ]


def _why_dtype(was: str, is_: str) -> str:
    if is_ in HALVES:
        return "sixteen_bit"
    return "not_floats" if was in FLOATS and is_ not in FLOATS else "other_dtype"


def differing_shapes(implied: Parts, real: Parts, shared: list[str], embeddings: Parts) -> list[Cause]:
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in shared:
        was, is_ = implied[name].shape, real[name].shape
        if was not in (is_, VARIES):
            found[_why_shape(name, implied, real, embeddings)].append(name)
    return [
        Cause(
            code,
            message + (f" Among {len(names)} such: {names[0]}." if code in _NAMED_BY_ONE else ""),
            len(names),
            sum(real[n].bytes - implied[n]._replace(dtype=real[n].dtype).bytes for n in names),
        )
        for (code, message), names in found.items()
    ]


_WRAPPED = re.compile(r"\.(?:original_module|modules_to_save)(?=\.weight$)")
_ENCODER = re.compile(r"\bencoder\.")
_NAMED_BY_ONE = ("empty_tensors", "other_shape")


def _why_shape(name: str, implied: Parts, real: Parts, embeddings: Parts) -> tuple[str, str]:
    was, is_ = implied[name].shape, real[name].shape
    rows_alone = len(was) == len(is_) and was[1:] == is_[1:]
    if 0 in is_:
        return "empty_tensors", "Tensors have no elements, as ZeRO-3 and FSDP leave what was not gathered."
    if ".lora_" in name:
        at = 0 if ".lora_A" in name or ".lora_embedding_A" in name else 1
        if 1 < len(was) == len(is_) and was[:at] + was[at + 1 :] == is_[:at] + is_[at + 1 :]:
            return "other_rank", f"Some matrices have rank {is_[at]}, which is not what adapter_config.json says."
    elif rows_alone and name.endswith(TOKENS):
        return "other_tokens", f"The file trains {is_[0]:,} tokens; trainable_token_indices names {was[0]:,}."
    elif rows_alone and is_embedding(_WRAPPED.sub("", name), embeddings):
        if odd := _of_other_rows(name, implied, real, embeddings):
            return "other_shape", f"{name} has {is_[0]:,} rows and {odd} has not: no vocabulary was resized so."
        return "resized_vocabulary", _resized(was[0], is_[0])
    elif rows_alone and _is_of_a_head(name, implied):
        labels = "1 label" if is_[0] == 1 else f"{is_[0]:,} labels"
        return "number_of_labels", f"The head has {labels}, which adapter_config.json does not say."
    return "other_shape", f"Tensors are {list(is_)}, not {list(was)}: another base or another class."


def _of_other_rows(name: str, implied: Parts, real: Parts, embeddings: Parts) -> str | None:
    """A tensor that has a row for each token as this one has, and has others in the file: resizing changes them all.

    An encoder may have a vocabulary of its own, which is resized alone (Marian, FSMT).
    """
    was, rows = implied[name].shape[0], real[name].shape[0]
    for other, part in implied.items():
        if bool(_ENCODER.search(other)) != bool(_ENCODER.search(name)):
            continue
        module, _, own = other.partition(".lora_")
        is_lora = own in ("B.weight", "embedding_A") and is_embedding(f"{module}.weight", embeddings)
        if is_lora or (not own and is_embedding(_WRAPPED.sub("", other), embeddings)):
            axis = 1 if own == "embedding_A" else 0
            there = real.get(other)
            if there is not None and part.shape[axis] == was and there.shape[axis : axis + 1] != (rows,):
                return other
    return None


def _is_of_a_head(name: str, implied: Parts) -> bool:
    """Whether rows may be labels: of a matrix that is saved whole, or of its bias."""
    weight = implied.get(name.removesuffix(".bias") + ".weight") if name.endswith(".bias") else implied[name]
    return not in_a_layer(name) and (weight is None or len(weight.shape) > 1)


def in_a_layer(name: str) -> bool:
    """Whether a tensor's module lies within a numbered one, as no head does."""
    return any(part.isdecimal() for part in name.split(".")[:-2])


def resized_vocabulary(was: int, rows: int, tensors: int, bytes_: int) -> Cause:
    """Embeddings with other rows than the base's."""
    return Cause("resized_vocabulary", _resized(was, rows), tensors, bytes_)


def _resized(was: int, rows: int) -> str:
    return f"The vocabulary was resized from {was:,} to {rows:,} rows."


def is_embedding(name: str, embeddings: Iterable[str]) -> bool:
    """Whether a tensor of the file is one of these, within PEFT's layer or not, or of a module of that last name.

    The prefix may stand before it more than once.
    """
    module, *known = (
        one.replace(PREFIX, "").removesuffix(".weight").removesuffix(".bias") for one in (name, *embeddings)
    )
    module = module.removesuffix(".base_layer").removesuffix(".token_adapter")
    return any(module == one or one.endswith("." + module.rpartition(".")[2]) for one in known)
