"""`--verify` of an estimate: torch and the rest are imported only behind it."""

from __future__ import annotations

from typing import Any


def verified(options: dict[str, Any], request: Any, answer: Any) -> dict[str, Any] | None:
    """The object of `verification`; None where it was not asked for."""
    if not options["verify"]:
        return None
    from estimator.jobs.verifying.verify import verify
    from estimator.report.verify_document import to_document

    chosen = {name: options[name] for name in ("device", "train_step", "trust_remote_code")}
    verification = verify(request, answer, **chosen)
    return to_document(verification)
