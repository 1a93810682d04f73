"""`lora-size sweep`: many ranks, targets, precisions and models side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from estimator.cli.modes import refuse_strays
from estimator.cli.options import (
    LOADING,
    LORA,
    MODEL,
    OUTPUT,
    models,
    named,
    quiet,
    request_fields,
    short_dtype,
    together,
)
from estimator.cli.run_options import GPU, TRAINING, gpu_memory, training_of
from estimator.cli.sections import SectionedCommand, option_name

if TYPE_CHECKING:
    from estimator.errors import LoraSizeError
    from estimator.jobs.sweep import Case
    from estimator.notes import Note
    from estimator.sizes.memory.training import Training


def _joined(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> str | None:
    """`--r 4 --r 8` is `--r 4,8`, as --model and --targets are repeated."""
    return ",".join(values) if values else None


_CROSSED = (
    click.option(
        "-m", "--model", multiple=True, callback=named, shell_complete=models, help="Repeatable: --model A --model B."
    ),
    click.option(
        "-r", "--r", metavar="4,8,16", multiple=True, callback=_joined, help="Ranks. [default: 8, or --config's]"
    ),
    click.option("-t", "--targets", multiple=True, help="Repeatable: --targets qv --targets all-linear."),
    click.option(
        "--base-precision", metavar="bf16,nf4", multiple=True, callback=_joined, help="How the base is loaded."
    ),
    click.option(
        "--plot",
        metavar="FILE.svg|png|html",
        callback=named,
        help="A chart; `pip install 'lora-size[plot]'` brings it.",
    ),
)
_FIRST = {"model", "r", "targets", "base_precision"}


def _without(options: tuple[Any, ...]) -> tuple[Any, ...]:
    """The options of an estimate that a sweep does not take as lists."""
    return tuple(option for option in options if option_name(option) not in _FIRST)


_SECTIONS = {
    "What is crossed": _CROSSED,
    "What it has to fit": GPU,
    "The run": TRAINING,
    "The models": _without(MODEL),
    "The adapters": _without(LORA),
    "How the base is loaded": _without(LOADING),
    "Output": OUTPUT,
}


@click.command(
    "sweep",
    short_help="Ranks, targets, precisions and models, each with each.",
    cls=SectionedCommand,
    sections=_SECTIONS,
)
@together(*_SECTIONS.values())
def command(**options: Any) -> int:
    """Ranks, target sets, precisions and models, each with each.

    `memory` is the middle of what nvidia-smi would show while training, `fits` judges its ceiling and floor against
    the GPU. A case that PEFT would refuse says why, and the exit code is then 1, as it is where a
    base's files contradict each other.

    \b
      lora-size sweep -m llama-3.1-8b --r 8,16,32 -t qv -t all-linear
      lora-size sweep -m llama-3.1-8b --base-precision bf16,nf4 --gpu rtx4090
      lora-size sweep -m llama-3.1-8b -m qwen2.5-7b --r 4,8,16 --plot ranks.svg
    """
    from estimator.jobs.sweep import frontier

    refuse_strays(options)
    if options["plot"]:
        from estimator.report.sweep_plot import require

        require(options["plot"])
    training, notes = training_of(options)
    memory = gpu_memory(options)
    cases = _cases(options, training, memory)
    failed = [case.error for case in cases if case.error is not None and case.parameters is None]
    form = "quiet" if options["quiet"] else "json" if options["json_"] else options["format_"]
    if len(failed) == len(cases):
        _say_others(failed)
        if form == "json":
            _print(form, cases, (), memory, notes)
        raise failed[0]
    best = frontier(cases)
    if options["plot"]:
        from estimator.report.sweep_plot import plot

        plot(cases, best, memory, options["plot"])
    _print(form, cases, best, memory, notes)
    return 1 if failed or any(case.cross_check == "mismatch" for case in cases) else 0


def _cases(options: dict[str, Any], training: Training, memory: int | None) -> list[Case]:
    """Each of what the lists hold with each; training and memory are what every case is planned for."""
    from estimator.jobs.sweep import sweep
    from estimator.request.request import Request

    single = {name: value for name, value in options.items() if name not in _FIRST}
    return list(
        sweep(
            Request(**request_fields(single)),
            models=options["model"] or (None,),
            targets=options["targets"] or (None,),
            precisions=_precisions(options["base_precision"]),
            ranks=_ranks(options["r"]),
            training=training,
            gpu_memory=memory,
        )
    )


def _print(form: str, cases: list[Case], best: Sequence[Case], memory: int | None, notes: Sequence[Note]) -> None:
    from estimator.report.sweep_forms import FORMS, open_questions, terminal

    if form == "quiet":
        for line in open_questions(cases):
            print(line, file=sys.stderr)
        for case in cases:
            print(quiet(case.parameters, case.file_bytes))
        return
    print(FORMS[form](cases, best, memory, notes))
    if form == "table":
        print(terminal(cases, best, memory, _width()))


def _say_others(failed: list[LoraSizeError]) -> None:
    """Each distinct error of a sweep that failed whole; the first is left to be raised."""
    from estimator.source.plain import plain

    others = dict.fromkeys(map(str, failed))
    others.pop(str(failed[0]))
    for what in others:
        print(f"Error: {plain(what, 600)}", file=sys.stderr)


def _width() -> int:
    """Columns of the terminal; COLUMNS is honoured."""
    from shutil import get_terminal_size

    return get_terminal_size().columns


def _ranks(text: str | None) -> list[int | None]:
    from estimator.errors import UsageError

    if text is None:
        return [None]
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{text[:80]!r} is no list of ranks.", where="--r", way_out="write 4,8,16") from None


def _precisions(text: str | None) -> Sequence[str | None]:
    from estimator.errors import UsageError
    from estimator.request.load_options import PRECISIONS

    if text is None:
        return [None]
    names = [short_dtype(part.strip(), PRECISIONS) for part in text.split(",")]
    if unknown := [name for name in names if name not in PRECISIONS]:
        way_out = "one of " + ", ".join(PRECISIONS)
        raise UsageError(f"there is no precision {unknown[0][:40]!r}.", where="--base-precision", way_out=way_out)
    return names
