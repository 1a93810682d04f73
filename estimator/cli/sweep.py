"""`lora-size sweep`: many ranks, targets, precisions and models side by side."""

from __future__ import annotations

from typing import Any

import click

from estimator.cli.options import FORMATS, LORA, MODEL, OUTPUT, request_fields, together
from estimator.cli.options import LOADING as _LOADING
from estimator.cli.plan import TRAINING, gpu_memory, training_of

_CROSSED = (
    click.option("-m", "--model", multiple=True, help="Repeatable."),
    click.option("-r", "--r", default="8", show_default=True, metavar="4,8,16", help="Ranks."),
    click.option("-t", "--targets", multiple=True, help="Repeatable: --targets qv --targets all-linear."),
    click.option("--base-precision", metavar="bf16,nf4", help="How the base is loaded."),
    click.option("--plot", metavar="FILE.svg|png|pdf", help="A chart, with the extra `plot` installed."),
)
_FIRST = {"model", "r", "targets", "base_precision"}


def _without(options: tuple[Any, ...]) -> tuple[Any, ...]:
    """The options of an estimate that a sweep does not take as lists."""

    def name(option: Any) -> str:
        def probe() -> None: ...

        return option(probe).__click_params__[-1].name

    return tuple(option for option in options if name(option) not in _FIRST)


@click.command("sweep")
@together(_CROSSED, _without(MODEL), _without(LORA), _without(_LOADING), TRAINING, OUTPUT)
def command(**options: Any) -> None:
    """Ranks, target sets, precisions and models, each with each."""
    from estimator.errors import UsageError
    from estimator.jobs.sweep import sweep
    from estimator.report.sweep_forms import FORMS, bars
    from estimator.request.request import Request

    if not options["model"]:
        raise UsageError(
            "no model is named.", where="--model", way_out="lora-size sweep --model llama-3.1-8b --r 4,8,16"
        )
    precisions = _precisions(options["base_precision"])
    lists = {name: options.pop(name) for name in _FIRST}
    cases = list(
        sweep(
            Request(**request_fields(options)),
            models=lists["model"],
            targets=lists["targets"] or (None,),
            precisions=precisions,
            ranks=_ranks(lists["r"]),
            training=training_of(options),
            gpu_memory=gpu_memory(options),
        )
    )
    format_ = "json" if options["json_"] else options["format_"]
    print(FORMS[format_](cases))
    if format_ == FORMATS[0] and (chart := bars(cases)):
        print("\n" + chart)
    if options["plot"]:
        from estimator.report.sweep_plot import plot

        plot(cases, options["plot"])
    return 1 if any(case.parameters is None for case in cases) else 0


def _ranks(text: str) -> list[int]:
    from estimator.errors import UsageError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{text[:80]!r} is no list of ranks.", where="--r", way_out="write 4,8,16") from None


def _precisions(text: str | None) -> list[str | None]:
    from estimator.errors import UsageError
    from estimator.request.load_options import PRECISIONS

    names = text.split(",") if text else [None]
    if unknown := [name for name in names if name is not None and name not in PRECISIONS]:
        way_out = "one of " + ", ".join(PRECISIONS)
        raise UsageError(f"there is no precision {unknown[0][:40]!r}.", where="--base-precision", way_out=way_out)
    return names
