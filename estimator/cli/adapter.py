"""`lora-size --adapter PATH_OR_ID`: a published adapter explained."""

from __future__ import annotations

from typing import Any

from estimator.cli.options import quiet, request_fields
from estimator.errors import NotFoundError, UsageError
from estimator.jobs.explain_adapter import explain_adapter
from estimator.report.explanation import explanation_document, explanation_text
from estimator.request.request import Request


def run(options: dict[str, Any]) -> int:
    """Print why the file is as large as it is; 1 where it is damaged or the difference stays open.

    Raises LoraSizeError.
    """
    if options["format_"] not in ("table", "json"):
        what = f"--format {options['format_']} is no form of a published adapter's explanation."
        raise UsageError(what, where="--format", way_out="table or json")
    try:
        explanation = explain_adapter(options["adapter"], Request(**request_fields(options)))
    except NotFoundError as error:
        if options["model"] or error.where != "--model":
            raise
        where, way_out = "base_model_name_or_path of its adapter_config.json", "name the base with --model"
        raise NotFoundError(error.what, where=where, way_out=way_out) from error
    document = explanation_document(explanation)
    if options["json_"] or options["format_"] == "json":
        from estimator.report.as_json import as_json

        print(as_json(document))
    elif options["quiet"]:
        print(quiet(document["implied"]["bytes"], document["actual"]["bytes"], document["status"]))
    else:
        print(explanation_text(document))
    return 1 if explanation.status in ("damaged", "unexplained") else 0
