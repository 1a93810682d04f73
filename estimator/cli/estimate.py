"""The default command: one adapter estimated and shown."""

from __future__ import annotations

import sys
from typing import Any

from estimator.cli.modes import refuse_strays
from estimator.cli.options import quiet, request_fields
from estimator.cli.verify import verified
from estimator.jobs.estimate import estimate
from estimator.report.document import to_document
from estimator.request.request import Request


def run(options: dict[str, Any]) -> int:
    """Print the answer in the format asked for; returns the exit code. Raises LoraSizeError."""
    refuse_strays(options)
    if options["adapter"]:
        from estimator.cli.adapter import run as run_adapter

        return run_adapter(options)
    request, progress = Request(**request_fields(options)), _progress()
    answer = estimate(request, progress=progress)
    document: dict[str, Any] = {**to_document(answer)}
    verification = verified(options, request, answer, progress)
    if verification is not None:
        document["verification"] = verification
    format_ = "json" if options["json_"] else options["format_"]
    if options["quiet"]:
        print(quiet(document["adapter"]["parameters"], document["adapter"]["file"]["bytes"]))
    else:
        print(_FORMATS[format_](document))
        for text in _extras(options, format_, answer, document):
            print("\n" + text)
    if options["quiet"] or format_ == "csv":
        tell_mismatch(document)
    checks = [document["cross_check"], *filter(None, [verification])]
    return 1 if any(check["status"] == "mismatch" for check in checks) else 0


def tell_mismatch(document: dict[str, Any]) -> None:
    """On stderr, why the exit code is 1, where the answer itself has no room for it."""
    if document["cross_check"]["status"] == "mismatch":
        from estimator.report.as_table import cross_check_lines

        print("\n".join(cross_check_lines(document)), file=sys.stderr)
    if document.get("verification", {}).get("status") == "mismatch":
        from estimator.report.verify_table import as_table as verification_table

        print(verification_table(document["verification"], document), file=sys.stderr)


def _as_json(document: dict[str, Any]) -> str:
    from estimator.report.as_json import as_json

    return as_json(document)


def _as_table(document: dict[str, Any]) -> str:
    from estimator.report.as_table import as_table

    return as_table(document)


def _as_markdown(document: dict[str, Any]) -> str:
    from estimator.report.as_markdown import as_markdown

    return as_markdown(document)


def _as_csv(document: dict[str, Any]) -> str:
    from estimator.report.as_csv import as_csv

    return as_csv(document)


_FORMATS = {"table": _as_table, "json": _as_json, "markdown": _as_markdown, "csv": _as_csv}


def _extras(options: dict[str, Any], format_: str, answer: Any, document: dict[str, Any]) -> list[str]:
    """Texts below a table; the other formats are read by programs and stay as they are."""
    texts = []
    if "verification" in document and format_ in ("table", "markdown"):
        from estimator.report.verify_table import as_table as verification_table

        texts.append(verification_table(document["verification"], document))
    if options["explain"] and format_ in ("table", "markdown"):
        from estimator.report.explain import explain

        texts.append(explain(document))
    if options["tree"] and format_ in ("table", "markdown"):
        from estimator.report.as_tree import as_tree

        dtype = next((part["dtype"] for part in document["adapter"]["parts"] if part["part"] == "lora"), None)
        texts.append(as_tree(answer.tree, answer.adaptation.modules, document["lora"], dtype))
    return texts


def _progress() -> Any:
    """A line on stderr that is written over, only where somebody is looking."""
    if not sys.stderr.isatty():
        return None

    def say(text: str) -> None:
        print("\r\033[K" + text, end="", file=sys.stderr, flush=True)

    return say
