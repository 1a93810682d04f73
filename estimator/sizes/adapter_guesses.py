"""Why an adapter file has another size than its adapter_config.json implies, where the size is all that is known.

A Git LFS pointer or a listing of the Hub tells the size alone. Each hypothesis is the implied tensors with one or two
things changed that are common in published adapters; it holds only where the file would come out to the very byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from estimator.sizes.adapter_causes import (
    DOUBLED_PREFIX,
    EMBEDDINGS_LEFT_OUT,
    HALVES,
    OLDER_BIASES,
    PREFIX,
    SAVED_ALONG,
    Cause,
    Part,
    Parts,
    in_a_layer,
    is_embedding,
)

_A, _B = ".lora_A.weight", ".lora_B.weight"
SizeOf = Callable[[Parts], int]  # bytes of the safetensors file that holds these tensors

# torch.save's zip: a record of its own for each tensor, padded to 64 bytes, with a directory and a pickle beside them:
# 240 to 290 bytes and the name, of torch 2.13; 120 to 140 in the format of before 1.6. Names may be another release's.
BIN_BYTES_A_TENSOR = 320
LEAST_BIN_BYTES_A_TENSOR = 100
BIN_BYTES = 4_096


def guess_causes(
    implied: Parts,
    actual_bytes: int,
    size_of: SizeOf,
    embeddings: Mapping[str, Part],
    others: Iterable[tuple[Cause, Parts]] = (),
) -> tuple[Cause, ...] | None:
    """The fewest causes that make the file `actual_bytes` long; () where it is so as implied, None where none do.

    embeddings: tensors of the file's names that PEFT could have saved along, input embedding first
    others: further hypotheses, of which the data alone has to fit, for their names are not known
    """
    if size_of(implied) == actual_bytes:
        return ()
    changed = [((), implied), *_changed_throughout(implied)]
    for causes, parts in changed[1:]:
        if size_of(parts) == actual_bytes:
            return _or_half_the_rank(causes) if size_of(_with_half_the_rank(implied)) == actual_bytes else causes
    alone = next(_solved(implied, actual_bytes, size_of, embeddings), None)
    if simpler := alone or _longer_names(implied, actual_bytes, size_of):
        return simpler
    for causes, parts in changed[1:]:
        for more in _solved(parts, actual_bytes, size_of, embeddings):
            return (*more, *causes)
    fitting = ((cause,) for cause, parts in others if _longer_names(parts, actual_bytes, size_of))
    return next(fitting, None)


def _with_half_the_rank(implied: Parts) -> Parts:
    def halved(name: str, part: Part) -> Part:
        at = 0 if name.endswith(_A) else 1
        if not name.endswith((_A, _B)) or len(part.shape) < 2:
            return part
        return part._replace(shape=(*part.shape[:at], part.shape[at] // 2, *part.shape[at + 1 :]))

    return {name: halved(name, part) for name, part in implied.items()}


def _or_half_the_rank(causes: tuple[Cause, ...]) -> tuple[Cause, ...]:
    first, *rest = causes
    message = f"{first.message} F32 at half the rank that adapter_config.json says would be as long."
    return first._replace(message=message), *rest


def guess_bin_causes(implied: Parts, actual_bytes: int) -> tuple[Cause, ...] | None:
    """The same for adapter_model.bin, whose container leaves some bytes open; None where the data does not fit."""
    for causes, parts in (((), implied), *_changed_throughout(implied)):
        beside = actual_bytes - sum(part.bytes for part in parts.values())
        if _is_container(beside, parts):
            message = f"A pickle in a zip: {beside:,} bytes of it are not tensors, as torch.save leaves them."
            half = _with_half_the_rank(implied)
            if causes and _is_container(actual_bytes - sum(part.bytes for part in half.values()), half):
                causes = _or_half_the_rank(causes)
            return (*causes, Cause("bin_file", message, len(parts), 0))
    return None


def _is_container(beside: int, parts: Parts) -> bool:
    """Whether torch.save leaves so many bytes beside the data of these tensors."""
    left = beside - sum(map(len, parts))
    return LEAST_BIN_BYTES_A_TENSOR * len(parts) < left <= BIN_BYTES + BIN_BYTES_A_TENSOR * len(parts)


def _changed_throughout(implied: Parts) -> Iterator[tuple[tuple[Cause, ...], Parts]]:
    """Hypotheses about all tensors alike."""
    for dtype in HALVES:  # a header that says BF16 is longer
        halved = {name: part._replace(dtype=dtype) for name, part in implied.items()}
        smaller = sum(part.bytes for part in halved.values()) - sum(part.bytes for part in implied.values())
        message = f"The tensors are {dtype}; PEFT's own default would have saved F32."
        yield (Cause("sixteen_bit", message, len(halved), smaller),), halved
    for code, message, end in _ADDED:
        outer = {name.removesuffix(_B): part for name, part in implied.items() if name.endswith(_B)}
        more = {name + end: Part(part.dtype, part.shape[:1]) for name, part in outer.items()}
        if more and not more.keys() & implied.keys():
            grown = sum(part.bytes for part in more.values())
            yield (Cause(code, message, len(more), grown),), {**implied, **more}
    doubled = {PREFIX + name: part for name, part in implied.items()}
    yield (Cause("doubled_prefix", DOUBLED_PREFIX, len(doubled), 0),), doubled
    for code, message, end in _LEFT_OUT:
        kept = {name: part for name, part in implied.items() if ".lora_" in name or not name.endswith(end)}
        if len(kept) < len(implied):
            lost = sum(part.bytes for part in implied.values()) - sum(part.bytes for part in kept.values())
            yield (Cause(code, message, len(implied) - len(kept), -lost),), kept


_FITS = "With {} of each layer the file has its size; adapter_config.json does not set {}."
_ADDED = (  # as long as the layer's output each
    ("dora_not_said", _FITS.format("DoRA's magnitudes", "use_dora"), ".lora_magnitude_vector"),
    ("lora_bias_not_said", _FITS.format("LoRA's own bias", "lora_bias"), ".lora_B.bias"),
)
_LEFT_OUT = (
    ("older_peft_bias", OLDER_BIASES, ".bias"),
    ("embeddings_left_out", EMBEDDINGS_LEFT_OUT, SAVED_ALONG),
)


def _solved(
    parts: Parts, actual_bytes: int, size_of: SizeOf, embeddings: Mapping[str, Part]
) -> Iterator[tuple[Cause, ...]]:
    """Hypotheses with a number in them, solved for it: labels of the head, rows of the embeddings."""
    head = _head({name: part for name, part in parts.items() if not is_embedding(_unwrapped(name), embeddings)})
    for rows, first in _solve_rows(parts, head, actual_bytes, size_of):
        message = f"The head has {rows:,} labels, which adapter_config.json does not say."
        yield (Cause("number_of_labels", message, len(head), (rows - first) * _row_bytes(parts, head)),)
    found: dict[tuple[tuple[str, ...], int, int], list[str]] = {}  # names, their rows, bytes of one -> dtypes that fit
    for names in _choices(tuple(embeddings)):
        held = {parts[name].dtype for name in names if name in parts}  # what is saved anyway keeps its dtype
        for dtype in held if len(held) == 1 else ("F32", *HALVES):
            along = {name: embeddings[name]._replace(dtype=dtype) for name in names}
            for rows, first in _solve_rows({**parts, **along}, names, actual_bytes, size_of):
                if abs(rows - first) <= first // 10:  # added tokens, or padding cut off
                    found.setdefault((names, rows, _row_bytes(along, names)), []).append(dtype)
    had = {names: embeddings[names[0]].shape[0] for names, _, _ in found}
    for (names, rows, row), dtypes in sorted(found.items(), key=lambda one: abs(one[0][1] - had[one[0][0]])):
        yield _embedding_causes(names, " or ".join(dtypes), rows, had[names], rows * row)


def _choices(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield from ((name,) for name in names)
    if len(names) > 1:
        yield names


def _unwrapped(name: str) -> str:
    return name.replace(".base_layer.", ".")


def _head(parts: Parts) -> tuple[str, ...]:
    """Tensors whose rows are labels: the smallest number of rows among matrices saved whole, their biases with them.

    parts: without embeddings and what is tied to them, whose rows are tokens.
    """
    modules = {n.removesuffix(".weight"): part.shape[0] for n, part in parts.items() if _is_matrix_saved(n, part)}
    fewest = min(modules.values(), default=0)
    ends = (".weight", ".bias")
    names = (module + end for module, rows in modules.items() if rows == fewest for end in ends)
    return tuple(name for name in names if name in parts)


def _is_matrix_saved(name: str, part: Part) -> bool:
    return name.endswith(".weight") and ".lora_" not in name and len(part.shape) > 1 and not in_a_layer(name)


def _solve_rows(parts: Parts, names: tuple[str, ...], actual_bytes: int, size_of: SizeOf) -> Iterator[tuple[int, int]]:
    """Rows of `names` that give the size, and the rows they had; found near where the bytes a row point."""
    row = _row_bytes(parts, names)
    if not row:
        return
    first = parts[names[0]].shape[0]
    about = first + (actual_bytes - size_of(parts)) // row
    for rows in range(max(1, about - 2), about + 3):
        resized = {name: part._replace(shape=(rows, *part.shape[1:])) for name, part in parts.items() if name in names}
        if size_of({**parts, **resized}) == actual_bytes:
            yield rows, first


def _row_bytes(parts: Parts, names: tuple[str, ...]) -> int:
    return sum(parts[name].bytes // max(1, parts[name].shape[0]) for name in names)


def _embedding_causes(names: tuple[str, ...], dtype: str, rows: int, first: int, grown: int) -> tuple[Cause, ...]:
    shown = ", ".join(name.removeprefix(PREFIX) for name in names)
    causes = [Cause("embeddings_saved", f"Embeddings are saved along in {dtype}: {shown}.", len(names), grown)]
    if rows != first:
        message = f"The vocabulary was resized from {first:,} to {rows:,} rows."
        causes.append(Cause("resized_vocabulary", message, len(names), 0))
    return tuple(causes)


def _longer_names(implied: Parts, actual_bytes: int, size_of: SizeOf) -> tuple[Cause, ...] | None:
    """Where the data fits and the header alone differs: other names of as many tensors.

    Any header is padded to a multiple of 8 bytes (safetensors 0.8.0, `prepare` in safetensors/src/tensor.rs).
    """
    difference, names = actual_bytes - size_of(implied), sum(map(len, implied))
    if not implied or abs(difference) > names // 2 or difference % 8:
        return None
    each = difference / len(implied)
    how = "longer" if each > 0 else "shorter"
    message = f"The data fits to the byte; the names are about {abs(each):.0f} characters {how} than today's."
    return (Cause("older_names", message, len(implied), 0),)
