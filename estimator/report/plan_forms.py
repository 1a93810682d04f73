"""A plan as table, markdown, csv and json. A row is name, lower, expected, upper, remark; bytes where it says bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from estimator.report.units import decimal_size, size_range
from estimator.source.plain import plain

Document = Mapping[str, Any]


def _table(document: Document) -> str:
    from estimator.report.as_table import as_table

    return as_table(document) + "\n\n" + "\n".join(_lines(document["plan"]))


def _markdown(document: Document) -> str:
    from tabulate import tabulate

    from estimator.report.as_markdown import as_markdown, cell

    rows = [list(map(cell, row.values())) for row in rows_of(document["plan"])]
    headers = ("section", "name", "lower", "expected", "upper", "remark")
    return as_markdown(document) + "\n\n" + tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def _csv(document: Document) -> str:
    from estimator.report.as_csv import rows_as_csv

    return rows_as_csv(rows_of(document["plan"]))


def _json(document: Document) -> str:
    from estimator.report.as_json import as_json

    return as_json(document)


FORMS: dict[str, Callable[[Document], str]] = {"table": _table, "markdown": _markdown, "csv": _csv, "json": _json}


def rows_of(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Everything with a number, flat: sections memory_bytes, peak_bytes, largest, saves_bytes, disk_bytes, ..."""
    return [
        dict(zip(("section", "name", "lower", "expected", "upper", "remark"), row, strict=True)) for row in _rows(plan)
    ]


def _rows(plan: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for part in plan["components"]:
        yield "memory_bytes", part["name"], part["lower_bytes"], None, part["upper_bytes"], part["basis"]
    for counter, peak in plan["peak"].items():
        yield "peak_bytes", counter, peak["lower_bytes"], peak["expected_bytes"], peak["upper_bytes"], ""
    if plan["gpu_memory"] is not None:
        yield "gpu_memory_bytes", "", None, plan["gpu_memory"], None, f"fits: {plan['fits']}"
    for name, value in plan["largest"].items():
        yield "largest", name, None, value, None, "surely fits"
    for change in plan.get("changes", ()):
        remark = "" if change["fits"] is None else f"then fits: {change['fits']}"
        yield "saves_bytes", change["change"], None, change["saves_bytes"], None, remark
    for row in plan.get("within_limits", ()):
        yield "largest_r_within_limits", row["targets"] or "these targets", None, row["r"], None, ""
    for name, size in plan["disk"].items():
        if size is not None:
            yield "disk_bytes", name.removesuffix("_bytes"), None, size, None, ""
    for name, bounds in plan.get("cost", {}).get("bounds", {}).items():
        yield "bounds", name, bounds["lower"], None, bounds["upper"], ""


def _lines(plan: Mapping[str, Any]) -> Iterator[str]:
    yield from _serving_head(plan["serving"]) if "serving" in plan else _training_head(plan["training"])
    for part in plan["components"]:
        yield f"  {part['name']:<32}{size_range(part['lower_bytes'], part['upper_bytes']):>24}  {part['basis']}"
    for counter, peak in plan["peak"].items():
        yield _peak(f"peak {counter}", peak)
    if "peak_moment" in plan:
        yield f"  the peak is in: {plan['peak_moment']}"
    yield from _judgement(plan)
    if "serving" in plan:
        yield from _serving_tail(plan["serving"])
    yield from _limits(plan)
    yield from _disk(plan["disk"])
    yield from _cost(plan.get("cost"))


def _training_head(training: Mapping[str, Any]) -> Iterator[str]:
    yield (f"memory of training on each GPU: batch {training['batch_size']}, {training['sequence_length']:,} tokens"
           f"{', packed' if training['packing'] else ''}, {training['optimizer']},")  # fmt: skip
    gpus = f", {training['gpus']:,} GPUs with {training['strategy']}" if training["gpus"] > 1 else ""
    yield (f"  mixed precision {training['mixed_precision']}, "
           f"checkpointing {'on' if training['gradient_checkpointing'] else 'off'}, {training['attention']}, "
           f"{training['loss']} loss{gpus}")  # fmt: skip


def _judgement(plan: Mapping[str, Any]) -> Iterator[str]:
    if plan["fits"] is None:
        yield "say --gpu rtx4090 or --gpu-memory 24GB to hear whether it fits"
    else:
        yield f"fits {decimal_size(plan['gpu_memory'])}: {plan['fits']}{_middle(plan)}"
        for name, value in plan["largest"].items():
            every = value is None and name == "sequence_length" and plan["fits"] == "yes"  # no layer sees words
            most = "any" if every else "none" if value is None else f"{value:,}"
            yield f"  largest {name} that surely fits: {most}"
    if plan.get("changes"):
        yield "what would save memory"
        width = max(len(change["change"]) for change in plan["changes"])
        for change in plan["changes"]:
            yield f"  {change['change']:<{width}}  {decimal_size(change['saves_bytes']):>9}{_verdict(change)}"
    if plan.get("changes_together"):
        yield f"  surely fits with {' '.join(plan['changes_together'])}"
    elif plan.get("changes") and plan["fits"] is not None:
        yield "  all of them together do not surely fit"


def _middle(plan: Mapping[str, Any]) -> str:
    """Where the bounds leave it open: on which side the middle lies."""
    does = plan["likely_fits"]
    if plan["fits"] != "maybe" or does is None:
        return ""
    peak = decimal_size(plan["peak"]["device"]["expected_bytes"])
    share = f" in {plan['serving']['gpu_memory_utilization']:.0%} of it" if "serving" in plan else ""
    return f" (the likely peak, {peak}, {'does' if does else 'does not'}{share})"


def _verdict(change: Mapping[str, Any]) -> str:
    if change["fits"] == "maybe":
        return {True: "  likely fits", False: "  likely not", None: "  may fit"}[change["likely_fits"]]
    return "  fits" if change["fits"] == "yes" else ""


def _limits(plan: Mapping[str, Any]) -> Iterator[str]:
    rows = plan.get("within_limits")
    if rows:
        yield "largest r within the limits"
    for row in rows or ():
        name = plain(row["targets"] or "these targets", 40)
        sizes = "" if row["r"] is None else f"{row['parameters']:,} parameters"
        sizes += f", {decimal_size(row['file_bytes'])}" if row["file_bytes"] is not None else ""
        yield f"  {name:<16}{'none' if row['r'] is None else row['r']:>8}   {sizes}".rstrip()


def _disk(disk: Mapping[str, int | None]) -> Iterator[str]:
    labels = {"adapter": "adapter file", "checkpoint": "a checkpoint", "download": "download of the base",
              "kept": "all checkpoints kept"}  # fmt: skip
    known = {labels[name.removesuffix("_bytes")]: size for name, size in disk.items() if size is not None}
    if known:
        yield "disk"
    for label, size in known.items():
        yield f"  {label:<32}{decimal_size(size):>24}"


def _cost(cost: Mapping[str, Any] | None) -> Iterator[str]:
    if cost is None:
        return
    yield f"bounds for {cost['tokens']:,} tokens ({cost['assumes']})"
    for name, bounds in cost["bounds"].items():
        yield f"  {name:<32}{bounds['lower']:>12,.3g} to {bounds['upper']:,.3g}"


def _serving_head(serving: Mapping[str, Any]) -> Iterator[str]:
    yield (f"memory of serving on each GPU with vLLM {serving['vllm_release']}: {serving['adapters']:,} "
           f"{'adapter' if serving['adapters'] == 1 else 'adapters'}, max_lora_rank {serving['max_lora_rank']}, "
           f"{serving['batch_size']:,} x {serving['sequence_length']:,} tokens")  # fmt: skip


def _serving_tail(serving: Mapping[str, Any]) -> Iterator[str]:
    cache = serving["kv_cache"]
    yield f"KV cache: {cache['bytes_per_token']:,} bytes a token and GPU"
    if cache["tokens"] is not None:
        low, high = cache["tokens"]["lower"], cache["tokens"]["upper"]
        share = serving["gpu_memory_utilization"]
        yield f"  left at gpu_memory_utilization {share}: {low:,} to {high:,} tokens"
    for problem in serving["refused"]:
        yield f"vLLM does not serve it: {plain(problem['message'], 600)}"
    peft = serving["peft"]
    yield "the same in PEFT"
    yield f"  {'adapters':<32}{decimal_size(peft['adapter_bytes']):>24}  {decimal_size(peft['bytes_each'])} each"
    yield f"  {'KV cache':<32}{decimal_size(peft['kv_bytes']):>24}  {peft['kv_bytes_per_token']:,} bytes a token"
    yield _peak("peak device", peft["device"])


def _peak(name: str, peak: Mapping[str, int]) -> str:
    bounds = size_range(peak["lower_bytes"], peak["upper_bytes"])
    return f"  {name:<32}{decimal_size(peak['expected_bytes']):>24}  likely, within {bounds}"
