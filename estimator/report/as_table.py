"""The answer for a terminal: aligned lines, and PEFT's own line at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from estimator.report.units import decimal_size, exact_size, percent, tensors
from estimator.source.plain import plain

Document = Mapping[str, Any]
_SOURCES = {"snapshot": "bundled snapshot", "local": "local files", "hub": "the Hub", "cache": "the Hub's cache"}
_PART_NAMES = {
    "lora": "LoRA matrices",
    "dora": "DoRA magnitudes",
    "bias": "biases",
    "saved_modules": "modules saved whole",
    "trainable_tokens": "trained tokens",
    "embeddings": "embeddings saved along",
}


def as_table(document: Document) -> str:
    """Several lines without a newline at the end."""
    blocks = [_head(document), _adapter(document), _base(document), cross_check_lines(document), _notes(document)]
    return "\n\n".join("\n".join(block) for block in map(list, blocks) if block) + "\n\n" + peft_line(document)


def peft_line(document: Document) -> str:
    """What PEFT's print_trainable_parameters() prints (peft 0.21.2, peft_model.py)."""
    trainable, total = document["adapter"]["parameters"], document["totals"]["all_parameters"]
    share = document["totals"]["trainable_percent"]
    return f"trainable params: {trainable:,d} || all params: {total:,d} || trainable%: {share:.4f}"


def describe_targets(lora: Mapping[str, Any], limit: int = 90) -> str:
    """target_modules, and target_parameters where given, in one phrase."""
    modules, parameters = lora.get("target_modules"), lora.get("target_parameters")
    names = modules if isinstance(modules, str) else ", ".join(map(str, modules or ()))
    if parameters:
        names = ", ".join(filter(None, (names, "parameters " + ", ".join(map(str, parameters)))))
    return plain(names, limit)


def _rows(rows: list[tuple[str, str, str]]) -> Iterator[str]:
    width = max(len(row[1]) for row in rows)
    for label, value, remark in rows:
        yield f"  {label:<22}{value:>{width}}   {remark}".rstrip()


def _head(document: Document) -> Iterator[str]:
    model, lora = document["model"], document["lora"]
    revision = f" @ {model['revision'][:12]}" if model["revision"] else ""
    origin = f"{plain(model['architecture'] or 'unknown architecture')}, from {_SOURCES[model['source']]}"
    yield f"{plain(model['id'])}{plain(revision)}   ({origin})"
    count = len(document["adapter"]["modules"])
    adapted = "1 module" if count == 1 else f"{count:,} modules"
    extras = [name for field, name in (("use_dora", "DoRA"), ("use_rslora", "rsLoRA")) if lora.get(field)]
    extras += [f"bias {lora['bias']}"] if lora.get("bias", "none") != "none" else []
    yield f"LoRA r={lora['r']} on {describe_targets(lora)} ({', '.join([adapted, *extras])})"
    if model["basis"] == "inferred":
        yield "INFERRED: kinds of modules were concluded from names and shapes"


def _adapter(document: Document) -> Iterator[str]:
    adapter, comparison = document["adapter"], document["comparison"]
    share = f"{percent(comparison['parameters_percent'])} of the base"
    rows = [("trainable parameters", f"{adapter['parameters']:,}", share)]
    file = adapter["file"]
    if file["bytes"] is not None:
        dtypes = ", ".join(file["dtypes"])
        remark = f"{decimal_size(file['bytes'])}, {tensors(file['tensors'])}, {dtypes}"
        rows.append(("adapter file", exact_size(file["bytes"]), remark))
    if len(adapter["parts"]) > 1:
        for part in adapter["parts"]:
            remark = f"{decimal_size(part['file_bytes'])} in the file"
            rows.append(("  " + _PART_NAMES[part["part"]], f"{part['parameters']:,}", remark))
    yield "adapter"
    yield from _rows(rows)


def _base(document: Document) -> Iterator[str]:
    base, file_bytes = document["base"], document["adapter"]["file"]["bytes"]
    rows = [("parameters", f"{base['parameters']:,}", "")]
    labels = {"checkpoint": "as stored"}
    for precision, size in base["bytes"].items():
        if size is not None:
            remark = f"the adapter file is {percent(100 * file_bytes / size)}" if file_bytes and size else ""
            rows.append((labels.get(precision, precision), decimal_size(size), remark))
    loaded = base["loaded"]
    if loaded["footprint_bytes"] is not None:
        remark = f"get_memory_footprint(), {loaded['precision']}"
        rows.append(("loaded for training", decimal_size(loaded["footprint_bytes"]), remark))
    if loaded["prepared_footprint_bytes"] is not None:
        remark = "after prepare_model_for_kbit_training()"
        rows.append(("prepared for k-bit", decimal_size(loaded["prepared_footprint_bytes"]), remark))
    yield "base model"
    yield from _rows(rows)


def cross_check_lines(document: Document) -> Iterator[str]:
    """Whether the files, their headers and config.json agree, and where they do not; nothing without headers."""
    check = document["cross_check"]
    files = check["files"]
    if check["status"] == "unavailable":
        return
    yield f"cross-check: {check['status']} ({len(files)} {'file' if len(files) == 1 else 'files'})"
    for file in files:
        promised, there = file["expected_bytes"], file["actual_bytes"]
        if None not in (promised, there) and promised != there:
            words = f"the header promises {exact_size(promised)}, the file has {exact_size(there)}"
            yield f"  {plain(file['path'])}: {words}"
    for complaint in check.get("complaints", ()):
        yield f"  {plain(complaint)}"


def _notes(document: Document) -> Iterator[str]:
    for note in document["notes"]:
        yield f"note: {plain(note['message'], 1000)}"
