"""`lora-size plan`: the memory and disk of a training run, or of serving what came out of it."""

from __future__ import annotations

import math
from typing import Any

import click

from estimator.cli.estimate import tell_mismatch
from estimator.cli.modes import refuse_strays
from estimator.cli.options import LOADING, LORA, MODEL, OUTPUT, quiet, request_fields, together
from estimator.cli.run_options import COUNT, GPU, TRAINING, gpu_memory, training_of
from estimator.cli.sections import SectionedCommand
from estimator.source.progress import patiently


def _a_number(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    """Refuses NaN, which is below no bound and above none, and of which JSON knows nothing; -0 is 0."""
    if value is not None and math.isnan(value):
        raise click.BadParameter(f"{value} is no price.", context, option)
    return None if value is None else abs(value)


_LIMITS = (
    click.option("--max-file-size", metavar="SIZE", help="Say the largest r, and the targets, whose file stays below."),
    click.option(
        "--max-parameters", type=click.IntRange(1), metavar="N", help="The same for at most so many parameters."
    ),
    click.option("--save-total-limit", type=COUNT, metavar="N", help="Checkpoints that are kept: their disk."),
    click.option(
        "--tokens", type=click.IntRange(1, 10**18), metavar="N", help="Tokens trained in all: bounds of the time."
    ),
    click.option(
        "--price",
        type=click.FloatRange(0, 10**9),
        metavar="PER_HOUR",
        callback=_a_number,
        help="Of one GPU: bounds of the cost.",
    ),
)
_SERVING = (
    click.option("--infer", is_flag=True, help="Serving instead of training: vLLM's memory, and PEFT's."),
    click.option(
        "--adapters", type=COUNT, metavar="N", help="With --infer: adapters side by side (max_loras). [default: 1]"
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


@click.command(
    "plan", short_help="Will it fit: the memory and disk of a run.", cls=SectionedCommand, sections=_SECTIONS
)
@together(*_SECTIONS.values())
def command(**options: Any) -> int:
    """Will it fit: memory and disk of a training run, and the largest batch, sequence and rank that do.

    Each part is exact or has a floor and a ceiling; `fits` is judged on what nvidia-smi would show: yes under the
    ceiling, no over the floor, maybe between. What is not given has the default of TrainingArguments, or what
    --config says. The exit code is 0 whether it fits or not, and 1 where the base's files contradict each other.

    \b
      lora-size plan -m llama-3.1-8b -r 16 --base-precision nf4 --gpu rtx4090
      lora-size plan --config axolotl.yaml --gpu-memory 24GB
      lora-size plan -m llama-3.1-8b -t qkvo --max-file-size 100MB
      lora-size plan -m llama-3.1-8b -r 16 --infer --adapters 8 --gpu l40s
    """
    from estimator.report.document import to_document

    refuse_strays(options)
    with patiently("working out what fits"):
        answer = _served(options) if options["infer"] else _planned(options)
    document = {**to_document(answer["answer"]), "plan": answer["plan"]}
    document["notes"] += [note._asdict() for note in answer["notes"]]
    print(_shown(options, document))
    if options["quiet"] or options["format_"] == "csv":
        tell_mismatch(document)
    return 1 if document["cross_check"]["status"] == "mismatch" else 0


def _shown(options: dict[str, Any], document: dict[str, Any]) -> str:
    from estimator.report.plan_forms import FORMS

    if options["quiet"]:
        return quiet(document["adapter"]["parameters"], document["adapter"]["file"]["bytes"])
    return FORMS["json" if options["json_"] else options["format_"]](document)


def _planned(options: dict[str, Any]) -> dict[str, Any]:
    from estimator.jobs.planning.plan import plan
    from estimator.report.plan_document import plan_object
    from estimator.request.request import Request

    training, notes = training_of(options)
    request = Request(**request_fields(options))
    found = plan(request, training, gpu_memory(options), save_total_limit=options["save_total_limit"])
    shown = plan_object(found) | _within_limits(options, request) | _costs(options, found)
    return {"answer": found.answer, "plan": shown, "notes": (*notes, *found.notes)}


def _served(options: dict[str, Any]) -> dict[str, Any]:
    from estimator.jobs.planning.serve import Serving, serve
    from estimator.report.serve_document import serve_object
    from estimator.request.request import Request

    given = {name: options[name] for name in Serving.__dataclass_fields__ if options.get(name) is not None}
    found = serve(Request(**request_fields(options)), Serving(**given), gpu_memory(options))
    return {"answer": found.answer, "plan": serve_object(found), "notes": found.notes}


def _within_limits(options: dict[str, Any], request: Any) -> dict[str, Any]:
    """The largest r below --max-file-size and --max-parameters, for the targets and for others; {} without a limit."""
    from estimator.jobs.planning.largest import Limits, within_limits
    from estimator.request.size import parse_size

    text, parameters = options["max_file_size"], options["max_parameters"]
    if text is None and parameters is None:
        return {}
    limits = Limits(file_bytes=parse_size(text, "--max-file-size") if text is not None else None, parameters=parameters)
    rows = within_limits(request, limits)
    return {"largest_r_within_limits": rows[0].r, "within_limits": [row._asdict() for row in rows]}


def _costs(options: dict[str, Any], found: Any) -> dict[str, Any]:
    if options["tokens"] is None:
        return {}
    from estimator.jobs.planning.cost import cost

    return {"cost": cost(found.answer, found.training, options["tokens"], options["gpu"], options["price"])}
