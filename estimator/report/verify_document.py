"""`verification` in the JSON of an estimate."""

from __future__ import annotations

from typing import Any

from estimator.report.verify_result import Verification

MOST_DIFFERENCES = 200


def to_document(verification: Verification) -> dict[str, Any]:
    """A plain object that json.dumps takes; of very many differences the first 200, with the count of all."""
    return {
        "status": "match" if verification.equal else "mismatch",
        "device": verification.device,
        "comparisons": _plain(verification.comparisons),
        "differences": _plain(verification.differences[:MOST_DIFFERENCES]),
        "differences_total": len(verification.differences),
        "left_out": list(verification.left_out),
        "measured_bytes": dict(verification.measured),
        "versions": dict(verification.versions),
    }


def _plain(value: Any) -> Any:
    """Named tuples as objects, so that a reader need not know their order."""
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
