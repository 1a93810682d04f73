"""The options of a training run and of what it has to fit, which `plan` and `sweep` share."""

from __future__ import annotations

from typing import Any

import click

from estimator.cli.options import named

COUNT = click.IntRange(1, 1_000_000)
_ATTENTION = ("eager", "sdpa", "flash_attention_2")
_STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp")

# No default is click's: an option that was not given leaves the word to --config.
TRAINING = (
    click.option("--batch-size", type=COUNT, metavar="N", help="Examples on each device. [default: 8]"),
    click.option("--gradient-accumulation", type=COUNT, metavar="N",
                 help="Batches before a step, between which gradients stay. [default: 1]"),
    click.option("--sequence-length", type=click.IntRange(1, 2**24), metavar="N",
                 help="Tokens of the longest example. [default: 1024]"),
    click.option("--packing/--no-packing", default=None, help="Every example is filled up to the length."),
    click.option("--mixed-precision", type=click.Choice(("no", "bf16", "fp16")),
                 help="Autocast, as --bf16 of a Trainer turns it on. [default: no]"),
    click.option("--gradient-checkpointing/--no-gradient-checkpointing", default=None,
                 help="Keep one input a layer and compute the rest twice. [default: off]"),
    click.option("--attention", type=click.Choice(_ATTENTION), help="attn_implementation. [default: sdpa]"),
    click.option("--loss", type=click.Choice(("standard", "in_place", "fused", "in_rows", "chunked")),
                 help="in_place: gradient over logits; fused: logits never whole, as Liger's; in_rows: TRL's own; "
                      "chunked: litgpt's, and torchtune's under checkpointing. [default: standard]"),
    click.option("--optimizer", metavar="NAME",
                 help="transformers' `optim`: adamw_torch, paged_adamw_8bit, adafactor, ... [default: adamw_torch]"),
    click.option("--gpus", type=click.IntRange(1, 100_000), metavar="N",
                 help="Devices that share the run. [default: 1]"),
    click.option("--strategy", type=click.Choice(_STRATEGIES), help="How they share it. [default: ddp]"),
)  # fmt: skip


def _gpus(context: click.Context, option: click.Parameter, begun: str) -> Any:
    from estimator.cli.completions import gpus

    return gpus(begun)


GPU = (
    click.option("--gpu", metavar="NAME", callback=named, shell_complete=_gpus,
                 help="What it has to fit: a100-80gb, rtx4090, mi300x, ..., or as nvidia-smi writes it."),
    click.option("--gpu-memory", metavar="SIZE", help="The same as a size: 24GB, 24GiB or bytes."),
)  # fmt: skip


def training_of(options: dict[str, Any]) -> Any:
    """The options as a Training, what is not given from --config; and notes on it."""
    from estimator.jobs.planning.training import FIELDS, training_from

    return training_from(options.get("config"), {name: options[name] for name in FIELDS})


def gpu_memory(options: dict[str, Any]) -> int | None:
    """Bytes of --gpu-memory, or of the GPU that --gpu names; raises UsageError for what can't be read."""
    from estimator.sizes.memory.gpus import gpu_bytes, memory_bytes

    if options["gpu_memory"] is not None:
        return memory_bytes(options["gpu_memory"], "--gpu-memory")
    return gpu_bytes(options["gpu"]) if options["gpu"] is not None else None
