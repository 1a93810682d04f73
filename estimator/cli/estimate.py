"""The default command: one adapter estimated and shown."""

from __future__ import annotations

import sys
from typing import Any

from estimator.cli.modes import refuse_strays
from estimator.cli.options import quiet, request_fields
from estimator.cli.verify import verified
from estimator.errors import UsageError
from estimator.jobs.estimate import estimate
from estimator.report.document import to_document
from estimator.request.request import Request, flag


def run(options: dict[str, Any]) -> int:
    """Print the answer in the format asked for; returns the exit code. Raises LoraSizeError."""
    refuse_strays(options)
    if options["adapter"]:
        from estimator.cli.adapter import run as run_adapter

        return run_adapter(options)
    form = _form(options)
    closer = _closer(options, form)
    request = Request(**request_fields(options))
    answer = estimate(request)
    document: dict[str, Any] = {**to_document(answer)}
    verification = verified(options, request, answer)
    if verification is not None:
        document["verification"] = verification
    document |= {name: _CLOSER[name](answer, document) for name in closer}
    print(_FORMS[form](document))
    if form in ("quiet", "csv"):
        tell_mismatch(document)
    checks = [document["cross_check"], *filter(None, [verification])]
    return 1 if any(check["status"] == "mismatch" for check in checks) else 0


def tell_mismatch(document: dict[str, Any]) -> None:
    """On stderr, why the exit code is 1, where the answer itself has no room for it."""
    if document["cross_check"]["status"] == "mismatch":
        from estimator.report.as_table import cross_check_lines

        print("\n".join(cross_check_lines(document)), file=sys.stderr)
    if document.get("verification", {}).get("status") == "mismatch":
        print(_as_verification(document), file=sys.stderr)


def _form(options: dict[str, Any]) -> str:
    if options["quiet"]:
        return "quiet"
    return "json" if options["json_"] else str(options["format_"])


def _closer(options: dict[str, Any], form: str) -> list[str]:
    """Which closer looks are asked for. Raises UsageError where the form has no place for them."""
    asked = [name for name in _CLOSER if options[name]]
    if asked and form in ("quiet", "csv"):
        option, shown = flag(asked[0]), "--quiet" if form == "quiet" else "--format csv"
        way_out = "take --format table, markdown or json"
        raise UsageError(f"{shown} has no place for {option}.", where=option, way_out=way_out)
    return asked


def _explanation(answer: Any, document: dict[str, Any]) -> str:
    from estimator.report.explain import explain

    return explain(document)


def _tree(answer: Any, document: dict[str, Any]) -> str:
    from estimator.report.as_tree import as_tree

    dtype = next((part["dtype"] for part in document["adapter"]["parts"] if part["part"] == "lora"), None)
    return as_tree(answer.tree, answer.adaptation.modules, document["lora"], dtype)


_CLOSER = {"explain": _explanation, "tree": _tree}  # the option, which is the document's field as well


def _as_json(document: dict[str, Any]) -> str:
    from estimator.report.as_json import as_json

    return as_json(document)


def _as_table(document: dict[str, Any]) -> str:
    from estimator.report.as_table import as_table

    return _with_closer(as_table(document), document)


def _as_markdown(document: dict[str, Any]) -> str:
    from estimator.report.as_markdown import as_markdown

    return _with_closer(as_markdown(document), document)


def _as_csv(document: dict[str, Any]) -> str:
    from estimator.report.as_csv import as_csv

    return as_csv(document)


def _as_quiet(document: dict[str, Any]) -> str:
    return quiet(document["adapter"]["parameters"], document["adapter"]["file"]["bytes"])


_FORMS = {"table": _as_table, "json": _as_json, "markdown": _as_markdown, "csv": _as_csv, "quiet": _as_quiet}


def _with_closer(text: str, document: dict[str, Any]) -> str:
    """A table and, each behind an empty line, what was asked for beside it."""
    verification = [_as_verification(document)] if "verification" in document else []
    return "\n\n".join((text, *verification, *(document[name] for name in _CLOSER if name in document)))


def _as_verification(document: dict[str, Any]) -> str:
    from estimator.report.verify_table import as_table

    return as_table(document["verification"], document)
