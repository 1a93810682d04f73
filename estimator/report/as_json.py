"""A document as indented JSON, each element of a list on a line of its own: a module is a line, however many there are.

json.dumps(indent=2) writes one line for each field and, with several hundred modules, takes as long as the estimate.
"""

from __future__ import annotations

import json
from typing import Any


def as_json(document: Any, before: str = "") -> str:
    """`document` as JSON; its lines but the first begin with `before`."""
    inner = f"{before}  "
    if isinstance(document, dict) and document:
        fields = (f"{inner}{json.dumps(name)}: {as_json(value, inner)}" for name, value in document.items())
        return "{\n" + ",\n".join(fields) + f"\n{before}}}"
    if isinstance(document, list) and any(isinstance(element, (dict, list)) for element in document):
        return "[\n" + ",\n".join(f"{inner}{json.dumps(element)}" for element in document) + f"\n{before}]"
    return json.dumps(document)
