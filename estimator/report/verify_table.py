"""A verification for a terminal; where something differs, what a maintainer needs, ready to paste into an issue."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from estimator.source.plain import plain

_SHOWN = 5  # differing entries of one list


def as_table(document: Mapping[str, Any], estimate: Mapping[str, Any]) -> str:
    """Several lines. document: `verification`; estimate: the whole object of the estimate."""
    lines = [f"verified on {document['device']} ({_versions(document['versions'])})", *_comparisons(document)]
    lines += [f"  {name}: {size:,} bytes" for name, size in document["measured_bytes"].items()]
    lines += [f"  not compared: {text}" for text in document["left_out"]]
    if document["status"] == "mismatch":
        lines += ["", *_report(document, estimate)]
    return "\n".join(lines)


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _comparisons(document: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (row["what"], _value(row["estimate"]), _value(row["real"]), row["equal"]) for row in document["comparisons"]
    ]
    widths = [max((len(row[place]) for row in rows), default=0) for place in range(3)]
    yield f"  {'':<{widths[0]}}  {'estimate':>{widths[1]}}  {'real':>{widths[2]}}"
    for what, estimate, real, equal in rows:
        verdict = "equal" if equal else "DIFFERS"
        yield f"  {what:<{widths[0]}}  {estimate:>{widths[1]}}  {real:>{widths[2]}}  {verdict}"


def _value(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "-" if value is None else plain(value, 60)


def _report(document: Mapping[str, Any], estimate: Mapping[str, Any]) -> Iterator[str]:
    """The shortest list of differences first: names, both values, then model, LoRA config and how it was loaded."""
    yield "For an issue:"
    for row in document["comparisons"]:
        if not row["equal"] and isinstance(row["estimate"], int) and isinstance(row["real"], int):
            more = row["estimate"] - row["real"]
            yield f"  {row['what']}: {row['estimate']:,} estimated, {row['real']:,} real, {more:+,}"
    by_list: dict[str, list[Mapping[str, Any]]] = {}
    for difference in document["differences"]:
        by_list.setdefault(difference["what"], []).append(difference)
    for what, differences in sorted(by_list.items(), key=lambda item: len(item[1])):
        yield f"  {what}: {len(differences):,} differ"
        for difference in differences[:_SHOWN]:
            yield f"    {plain(difference['name'] or '(the model itself)')}"
            yield f"      estimate {_entry(difference['estimate'])}"
            yield f"      real     {_entry(difference['real'])}"
    model = estimate["model"]
    yield f"  model {plain(model['id'])} @ {model['revision'] or '-'} ({plain(model['architecture'])})"
    asked = {name: value for name, value in estimate["lora"].items() if value not in (None, {}, [], False)}
    yield f"  lora {plain(json.dumps(asked, default=list), 1500)}"
    loaded = estimate["base"]["loaded"]
    yield f"  loaded {loaded['precision']}, dtype {loaded['dtype']}, on {document['device']}"
    yield f"  basis {model['basis']}, shapes from {model['shapes']}, source {model['source']}"
    yield f"  versions {_versions(document['versions'])}"


def _entry(value: Any) -> str:
    return "not there" if value is None else plain(json.dumps(value), 300)
