"""A published adapter's explanation as a document and for a terminal; sizes in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator.report.units import exact_size, tensors
from estimator.source.plain import plain

_SAID = {
    "exact": "the file is what adapter_config.json implies, to the byte",
    "explained": "the file differs from what adapter_config.json implies, and it is known why",
    "unexplained": "the file differs from what adapter_config.json implies",
    "damaged": "the file is damaged",
    "unknown": "there is no file to compare with",
    "open": "adapter_config.json does not tell to the byte what is in the file",
}


def explanation_document(explanation: Any) -> dict[str, Any]:
    """A plain object that json.dumps takes. `explanation`: jobs' AdapterExplanation."""
    found, answer = explanation.adapter, explanation.answer
    return {
        "adapter": {"id": found.id, "revision": found.revision, "source": found.source},
        "base": None if answer is None else {"id": answer.found.id, "architecture": answer.tree.architecture},
        "status": explanation.status,
        "implied": {
            "bytes": explanation.implied_bytes,
            "parameters": answer and answer.adaptation.trainable_parameters,
            "tensors": answer and len(answer.adaptation.tensors),
        },
        "actual": {"bytes": explanation.actual_bytes, "tensors": explanation.tensors},
        "causes": [cause._asdict() for cause in explanation.causes],
        "notes": [note._asdict() for note in answer.notes] if answer else [],
    }


def explanation_text(document: Mapping[str, Any]) -> str:
    """Several lines without a newline at the end."""
    implied, actual, base = document["implied"], document["actual"], document["base"]
    status = document["status"]
    if status in ("explained", "unexplained") and implied["bytes"] is None:
        status = "open"
    lines = [
        f"{plain(document['adapter']['id'])}: {_SAID[status]}",
        f"  base      {plain(base['id'])} ({plain(base['architecture'])})" if base else "  base      -",
        f"  implied   {_size(implied)}",
        f"  file      {_size(actual)}",
    ]
    for cause in document["causes"]:
        grown = f"  [{cause['bytes']:+,} bytes]" if cause["bytes"] else ""
        lines.append(f"  because   {plain(cause['message'], 600)}{grown}")
    lines += [f"note: {plain(note['message'], 1000)}" for note in document["notes"]]
    return "\n".join(lines)


def _size(side: Mapping[str, Any]) -> str:
    known = exact_size(side["bytes"]) if side["bytes"] is not None else "not known"
    return known if side["tensors"] is None else f"{known} in {tensors(side['tensors'])}"
