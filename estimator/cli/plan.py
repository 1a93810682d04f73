"""`lora-size plan`: the memory and disk of a training run, or of serving what came out of it."""

from __future__ import annotations

import sys
from typing import Any

import click

from estimator.cli.options import LOADING, LORA, MODEL, OUTPUT, request_fields, together
from estimator.cli.sections import SectionedCommand

_COUNT = click.IntRange(1, 1_000_000)
_ATTENTION = ("eager", "sdpa", "flash_attention_2")
_STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp")

# No default is click's: an option that was not given leaves the word to --config.
TRAINING = (
    click.option("--batch-size", type=_COUNT, metavar="N", help="Examples on each device. [default: 8]"),
    click.option("--gradient-accumulation", type=_COUNT, metavar="N",
                 help="Batches before a step; costs no memory. [default: 1]"),
    click.option("--sequence-length", type=click.IntRange(1, 2**24), metavar="N",
                 help="Tokens of the longest example. [default: 1024]"),
    click.option("--packing/--no-packing", default=None, help="Every example is filled up to the length."),
    click.option("--mixed-precision", type=click.Choice(("no", "bf16", "fp16")),
                 help="Autocast, as --bf16 of a Trainer turns it on. [default: no]"),
    click.option("--gradient-checkpointing/--no-gradient-checkpointing", default=None,
                 help="Keep one input a layer and compute the rest twice. [default: off]"),
    click.option("--attention", type=click.Choice(_ATTENTION), help="attn_implementation. [default: sdpa]"),
    click.option("--loss", type=click.Choice(("standard", "in_place", "fused", "chunked")),
                 help="in_place: gradient over logits; fused: logits never whole, as Liger's. [default: standard]"),
    click.option("--optimizer", metavar="NAME",
                 help="transformers' `optim`: adamw_torch, paged_adamw_8bit, adafactor, ... [default: adamw_torch]"),
    click.option("--gpus", type=click.IntRange(1, 100_000), metavar="N",
                 help="Devices that share the run. [default: 1]"),
    click.option("--strategy", type=click.Choice(_STRATEGIES), help="How they share it. [default: ddp]"),
)  # fmt: skip
GPU = (
    click.option("--gpu", metavar="NAME", help="What it has to fit: a100-80gb, h100, rtx4090, t4, ..."),
    click.option("--gpu-memory", metavar="SIZE", help="The same as a size: 24GB, 24GiB or bytes."),
)
_LIMITS = (
    click.option("--max-file-size", metavar="SIZE", help="Say the largest r, and the targets, whose file stays below."),
    click.option(
        "--max-parameters", type=click.IntRange(1), metavar="N", help="The same for at most so many parameters."
    ),
    click.option("--save-total-limit", type=_COUNT, metavar="N", help="Checkpoints that are kept: their disk."),
    click.option("--tokens", type=click.IntRange(1), metavar="N", help="Tokens trained in all: bounds of the time."),
    click.option("--price", type=click.FloatRange(0), metavar="PER_HOUR", help="Of one GPU: bounds of the cost."),
)
_SERVING = (
    click.option("--infer", is_flag=True, help="Serving instead of training: vLLM's memory, and PEFT's."),
    click.option(
        "--adapters", type=_COUNT, metavar="N", help="With --infer: adapters side by side (max_loras). [default: 1]"
    ),
    click.option(
        "--max-lora-rank", type=click.IntRange(1), metavar="N", help="With --infer: vLLM's max_lora_rank. [default: 16]"
    ),
)


_SECTIONS = {
    "What it has to fit": GPU,
    "The run": TRAINING,
    "Limits, disk, time": _LIMITS,
    "Serving": _SERVING,
    "The model": MODEL,
    "The adapter": LORA,
    "How the base is loaded": LOADING,
    "Output": OUTPUT,
}


@click.command("plan", cls=SectionedCommand, sections=_SECTIONS)
@together(*_SECTIONS.values())
def command(**options: Any) -> None:
    """Will it fit: memory and disk of a training run, and the largest batch, sequence and rank that do.

    Each part is exact or has a floor and a ceiling; `fits` is judged on what nvidia-smi would show: yes under the
    ceiling, no over the floor, maybe between. What is not given has the default of TrainingArguments, or what
    --config says.

    \b
      lora-size plan -m llama-3.1-8b -r 16 -t all-linear --base-precision nf4 --gpu rtx4090
      lora-size plan --config axolotl.yaml --gpu-memory 24GB
      lora-size plan -m llama-3.1-8b -t qkvo --max-file-size 100MB
      lora-size plan -m llama-3.1-8b -r 16 --infer --adapters 8 --gpu l40s
    """
    from estimator.report.document import to_document

    require_model(options, "plan")
    _refuse_strays(options)
    answer = _served(options) if options["infer"] else _planned(options)
    document = {**to_document(answer["answer"]), "plan": answer["plan"]}
    document["notes"] += [note._asdict() for note in answer["notes"]]
    print(_shown(options, document))
    sys.stdout.flush()


def _shown(options: dict[str, Any], document: dict[str, Any]) -> str:
    from estimator.report.plan_forms import FORMS

    if options["quiet"]:
        return f"{document['adapter']['parameters']}\t{document['adapter']['file']['bytes']}"
    return FORMS["json" if options["json_"] else options["format_"]](document)


def _planned(options: dict[str, Any]) -> dict[str, Any]:
    from estimator.jobs.plan import plan
    from estimator.report.plan_document import plan_object
    from estimator.request.request import Request

    training, notes = training_of(options)
    request = Request(**request_fields(options))
    found = plan(request, training, gpu_memory(options), save_total_limit=options["save_total_limit"])
    shown = plan_object(found) | _within_limits(options, request) | _costs(options, found)
    return {"answer": found.answer, "plan": shown, "notes": (*notes, *found.notes)}


def _served(options: dict[str, Any]) -> dict[str, Any]:
    from estimator.jobs.serve import Serving, serve
    from estimator.report.serve_document import serve_object
    from estimator.request.request import Request

    given = {name: options[name] for name in Serving.__dataclass_fields__ if options.get(name) is not None}
    found = serve(Request(**request_fields(options)), Serving(**given), gpu_memory(options))
    return {"answer": found.answer, "plan": serve_object(found), "notes": found.notes}


def require_model(options: dict[str, Any], name: str) -> None:
    """Raises UsageError where neither --model nor --config names one."""
    from estimator.errors import UsageError

    if not options["model"] and not options["config"]:
        way_out = f"for instance: lora-size {name} --model llama-3.1-8b --r 16"
        raise UsageError("no model is named.", where="--model", way_out=way_out)


def _refuse_strays(options: dict[str, Any]) -> None:
    """Options that only the other half of the command reads."""
    from estimator.errors import UsageError

    serving = ("adapters", "max_lora_rank")
    training = {option.replace("-", "_") for option in (
        "gradient-accumulation", "packing", "mixed-precision", "gradient-checkpointing", "loss", "optimizer",
        "strategy", "max-file-size", "max-parameters", "save-total-limit", "tokens", "price")}  # fmt: skip
    for name in sorted(training) if options["infer"] else serving:
        if options[name] is not None:
            option = "--" + name.replace("_", "-")
            what = f"{option} says how to {'train' if options['infer'] else 'serve'}."
            way_out = "leave it or --infer out" if options["infer"] else "add --infer"
            raise UsageError(what, where=option, way_out=way_out)
    if options["price"] is not None and options["tokens"] is None:
        raise UsageError("a price an hour needs the hours.", where="--price", way_out="add --tokens 10000000")


def training_of(options: dict[str, Any]) -> Any:
    """The options as a Training, what is not given from --config; and notes on it."""
    from estimator.jobs.training import FIELDS, training_from

    return training_from(options.get("config"), {name: options[name] for name in FIELDS})


def gpu_memory(options: dict[str, Any]) -> int | None:
    """Bytes of --gpu-memory, or of the GPU that --gpu names; raises UsageError for what can't be read."""
    from estimator.sizes.gpus import gpu_bytes, memory_bytes

    if options["gpu_memory"]:
        return memory_bytes(options["gpu_memory"], "--gpu-memory")
    return gpu_bytes(options["gpu"]) if options["gpu"] else None


def _within_limits(options: dict[str, Any], request: Any) -> dict[str, Any]:
    """The largest r below --max-file-size and --max-parameters, for the targets and for others; {} without a limit."""
    from estimator.jobs.largest import Limits, within_limits
    from estimator.sizes.gpus import parse_size

    text, parameters = options["max_file_size"], options["max_parameters"]
    if not text and not parameters:
        return {}
    limits = Limits(file_bytes=parse_size(text, "--max-file-size") if text else None, parameters=parameters)
    rows = within_limits(request, limits)
    return {"largest_r_within_limits": rows[0].r, "within_limits": [row._asdict() for row in rows]}


def _costs(options: dict[str, Any], found: Any) -> dict[str, Any]:
    if options["tokens"] is None:
        return {}
    from estimator.jobs.cost import cost

    return {"cost": cost(found.answer, found.training, options["tokens"], options["gpu"], options["price"])}
