"""Options that mean something in one mode of a command only; anywhere else they are refused, not dropped."""

from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from estimator.errors import UsageError
from estimator.request.request import flag


class Mode(NamedTuple):
    """`options` need the option that chooses the mode (`chosen`), or go only without it."""

    chooser: str
    chosen: bool
    says: str
    options: tuple[str, ...]


_VERIFYING = ("device", "train_step", "trust_remote_code")
MODES = (
    Mode("adapter", False, "says nothing of a published adapter, which brings its own config and file", (
        "config", "explain", "tree", "verify", *_VERIFYING, "double_quant", "quant_storage", "compute_dtype")),
    Mode("verify", True, "says how to verify", _VERIFYING),
    Mode("infer", True, "says how to serve", ("adapters", "max_lora_rank")),
    Mode("infer", False, "says how to train", (
        "gradient_accumulation", "packing", "mixed_precision", "gradient_checkpointing", "attention", "loss",
        "optimizer", "strategy", "max_file_size", "max_parameters", "save_total_limit", "tokens", "price")),
    Mode("tokens", True, "is by the hour, and without tokens no hours are known", ("price",)),
    Mode("gpu_memory", False, "names the memory that --gpu-memory gives", ("gpu",)),
)  # fmt: skip


def refuse_strays(options: dict[str, Any]) -> None:
    """Raises UsageError for the first option given on the command line whose mode was not chosen."""
    context = click.get_current_context()

    def given(name: str) -> bool:
        return name in options and context.get_parameter_source(name) is not ParameterSource.DEFAULT

    for mode in MODES:
        if mode.chooser not in options or given(mode.chooser) is mode.chosen:
            continue
        for name in filter(given, mode.options):
            option, chooser = flag(f"no_{name}" if options[name] is False else name), flag(mode.chooser)
            way_out = f"add {chooser}" if mode.chosen else f"leave {option} or {chooser} out"
            raise UsageError(f"{option} {mode.says}.", where=option, way_out=way_out)
