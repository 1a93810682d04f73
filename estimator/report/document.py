"""The contract's JSON object: field names, types and units as users rely on them; sizes in bytes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from estimator.architecture.facts import newer_release
from estimator.dtypes import BITS
from estimator.lora.adapt import PEFT, TRANSFORMERS
from estimator.lora.tensors import SavedTensor
from estimator.report.answer import Answer
from estimator.sizes.comparison import compare, percent_of

if TYPE_CHECKING:
    from estimator.report import document_types as types

SCHEMA_VERSION = 1
_WIDTHS = {"fp32": 4, "bf16": 2, "fp16": 2}


def to_document(answer: Answer) -> "types.Document":
    """A plain object that json.dumps takes."""
    tree = answer.tree
    newer = newer_release(tree.architecture, tree.config.get("model_type"))
    return {
        "schema_version": SCHEMA_VERSION,
        "model": _model(answer),
        "lora": answer.adaptation.config,
        "adapter": _adapter(answer),
        "base": _base(answer),
        "totals": _totals(answer),
        "cross_check": _cross_check(answer),
        "comparison": _comparison(answer),
        "rules": {"peft": PEFT, "transformers": newer or TRANSFORMERS},
        "notes": [{"code": note.code, "message": note.message} for note in answer.notes],
    }


def _model(answer: Answer) -> "types.Model":
    found, tree = answer.found, answer.tree
    return {
        "id": found.id,
        "revision": found.revision,
        "source": found.source,
        "architecture": _declared(tree.config),
        "basis": tree.basis,
        "shapes": tree.shapes,
    }


def _declared(config: Mapping[str, Any]) -> str | None:
    return next(iter(config.get("architectures") or ()), None)


def _adapter(answer: Answer) -> "types.Adapter":
    adaptation = answer.adaptation
    parameters = adaptation.trainable_parameters
    stored = _stored(adaptation.tensors if adaptation.has_size else ())
    return {
        "parameters": parameters,
        "bytes": {precision: parameters * width for precision, width in _WIDTHS.items()},
        "modules": [
            {
                "name": module.name,
                "kind": module.kind,
                "in_features": module.in_features,
                "out_features": module.out_features,
                "rank": module.rank,
                "parameters": module.parameters,
            }
            for module in adaptation.modules
        ],
        "file": {
            "bytes": answer.file_bytes,
            "tensors": None if answer.file_bytes is None else len(adaptation.tensors),
            "dtypes": _dtypes(stored),
        },
        "parts": _parts(stored, adaptation.parameters_by_part),
    }


class _Stored(NamedTuple):
    """Tensors of one part, dtype and shape."""

    part: str
    dtype: str
    tensors: int
    elements: int
    bytes: int


def _stored(tensors: Iterable[SavedTensor]) -> list[_Stored]:
    stored = []
    for (part, dtype, shape), count in Counter((t.part, t.dtype, t.shape) for t in tensors).items():
        elements = prod(shape)
        stored.append(_Stored(part, dtype, count, count * elements, count * (elements * BITS[dtype] // 8)))
    return stored


def _dtypes(stored: Iterable[_Stored]) -> "dict[str, types.Tensors]":
    dtypes: dict[str, types.Tensors] = {}
    for some in stored:
        entry = dtypes.setdefault(some.dtype, {"tensors": 0, "elements": 0, "bytes": 0})
        entry["tensors"] += some.tensors
        entry["elements"] += some.elements
        entry["bytes"] += some.bytes
    return dtypes


def _parts(stored: Iterable[_Stored], parameters_by_part: Mapping[str, int]) -> "list[types.Part]":
    parts: dict[tuple[str, str | None], types.Part] = {}
    for some in stored:
        entry = parts.setdefault(
            (some.part, some.dtype), {"part": some.part, "parameters": 0, "file_bytes": 0, "dtype": some.dtype}
        )
        entry["file_bytes"] += some.bytes
    for part, parameters in parameters_by_part.items():
        key: tuple[str, str | None] = next((key for key in parts if key[0] == part), (part, None))
        entry = parts.setdefault(key, {"part": part, "parameters": 0, "file_bytes": 0, "dtype": None})
        entry["parameters"] = parameters
    return list(parts.values())


def _base(answer: Answer) -> "types.Base":
    base = answer.base
    return {
        "parameters": base.parameters,
        "bytes": {"checkpoint": base.checkpoint_bytes, **base.bytes},
        "footprint": dict(base.footprint),
        "loaded": {
            "precision": base.loaded.precision,
            "dtype": base.loaded.dtype,
            "footprint_bytes": base.loaded.footprint_bytes,
            "state_bytes": base.loaded.state_bytes,
            "prepared_footprint_bytes": base.loaded.prepared_footprint_bytes,
        },
    }


def _totals(answer: Answer) -> "types.Totals":
    total = answer.base.all_parameters + answer.adaptation.added_parameters
    return {
        "all_parameters": total,
        "trainable_percent": 100 * answer.adaptation.trainable_parameters / total if total else 0.0,
    }


def _cross_check(answer: Answer) -> "types.CrossCheck":
    check = answer.cross_check
    files: list[types.CheckedFile] = [
        {"path": f.path, "expected_bytes": f.expected_bytes, "actual_bytes": f.actual_bytes, "dtypes": dict(f.dtypes)}
        for f in check.files
    ]
    return {"status": check.status, "files": files, "complaints": list(check.complaints)}


def _comparison(answer: Answer) -> "types.Comparison":
    parameters, file_bytes, base_bytes = answer.base.parameters, answer.file_bytes, answer.comparison_bytes
    beside = compare(file_bytes, answer.base)
    return {
        "parameters_percent": 100 * answer.adaptation.trainable_parameters / parameters if parameters else 0.0,
        "bytes_percent": percent_of(file_bytes, base_bytes),
        "bytes_percent_at": dict(beside.percent_at),
        "full_checkpoint_bytes": beside.full_checkpoint_bytes,
        "merged_bytes": beside.merged_bytes,
    }
