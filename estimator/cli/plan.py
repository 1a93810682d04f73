"""`lora-size plan`: the memory and disk of a training run."""

from __future__ import annotations

import sys
from typing import Any

import click

from estimator.cli.options import LOADING, LORA, MODEL, OUTPUT, request_fields, together

_COUNT = click.IntRange(1, 1_000_000)
_ATTENTION = ("eager", "sdpa", "flash_attention_2")
_STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp")

TRAINING = (
    click.option("--batch-size", type=_COUNT, default=8, show_default=True, help="Examples on each device."),
    click.option("--gradient-accumulation", type=_COUNT, default=1, show_default=True),
    click.option("--sequence-length", type=click.IntRange(1, 2**24), default=1024, show_default=True, help="Tokens."),
    click.option("--packing/--no-packing", default=False, help="Every example is filled up to the length."),
    click.option("--mixed-precision", type=click.Choice(("no", "bf16", "fp16")), default="no", show_default=True),
    click.option("--gradient-checkpointing/--no-gradient-checkpointing", default=False),
    click.option("--attention", type=click.Choice(_ATTENTION), default="sdpa", show_default=True),
    click.option("--loss", type=click.Choice(("standard", "fused", "chunked")), default="standard", show_default=True),
    click.option("--optimizer", default="adamw_torch", show_default=True, help="transformers' `optim`."),
    click.option("--gpu", metavar="NAME", help="a100-80gb, h100, rtx4090, ..."),
    click.option("--gpu-memory", metavar="SIZE", help="24GB, 24GiB or bytes."),
    click.option("--gpus", type=click.IntRange(1, 100_000), default=1, show_default=True),
    click.option("--strategy", type=click.Choice(_STRATEGIES), default="ddp", show_default=True),
    click.option("--max-file-size", metavar="SIZE", help="Say the largest r whose adapter file stays below."),
    click.option("--max-parameters", type=click.IntRange(1), help="Say the largest r with at most so many parameters."),
)  # fmt: skip


@click.command("plan")
@together(MODEL, LORA, LOADING, TRAINING, OUTPUT)
def command(**options: Any) -> None:
    """Will it fit: memory and disk of a training run, and the largest batch, sequence and rank that do."""
    from estimator.jobs.plan import plan
    from estimator.report.document import to_document
    from estimator.report.plan_document import plan_object, plan_table
    from estimator.request.request import Request

    answer = plan(Request(**request_fields(options)), training_of(options), gpu_memory(options))
    document = {**to_document(answer.answer), "plan": plan_object(answer)}
    document["notes"] += [note._asdict() for note in answer.notes]
    document["plan"] |= _within_limits(options)
    if options["quiet"]:
        print(answer.memory.device.expected, answer.fits or "", sep="\t")
    elif options["json_"] or options["format_"] == "json":
        import json

        print(json.dumps(document, indent=2))
    else:
        from estimator.cli.estimate import _FORMATS

        if options["format_"] == "table":
            print(_FORMATS["table"](document) + "\n")
        print(plan_table(document))
    sys.stdout.flush()


def training_of(options: dict[str, Any]) -> Any:
    """The options as a Training."""
    from estimator.sizes.training import Training

    return Training(**{name: options[name] for name in Training.__dataclass_fields__})


def gpu_memory(options: dict[str, Any]) -> int | None:
    """Bytes of --gpu-memory, or of the GPU that --gpu names; raises UsageError for what can't be read."""
    from estimator.sizes.gpus import gpu_bytes, parse_size

    if options["gpu_memory"]:
        return parse_size(options["gpu_memory"], "--gpu-memory")
    return gpu_bytes(options["gpu"]) if options["gpu"] else None


def _within_limits(options: dict[str, Any]) -> dict[str, int | None]:
    """The largest r below --max-file-size and --max-parameters, where one is given."""
    from estimator.jobs.plan import largest_rank
    from estimator.request.request import Request
    from estimator.sizes.gpus import parse_size

    text, parameters = options.get("max_file_size"), options.get("max_parameters")
    if not text and not parameters:
        return {}
    file_bytes = parse_size(text, "--max-file-size") if text else None
    request = Request(**request_fields(options))
    return {"largest_r_within_limits": largest_rank(request, max_file_bytes=file_bytes, max_parameters=parameters)}
