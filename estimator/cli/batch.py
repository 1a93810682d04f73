"""`lora-size batch`: JSON Lines in, JSON Lines out."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from estimator.cli.options import named


@click.command("batch", short_help="JSON Lines in, JSON Lines out: one request a line.")
@click.argument("file", type=click.Path(), callback=named)
@click.option("--offline", is_flag=True, help="Never ask the network.")
def command(file: str, offline: bool) -> int:
    """Answer FILE (or - for standard input): one request a line, in order.

    A line is {"id": ..., "result": ...} or {"id": ..., "error": ...}; the exit code is 1 where any is an error. Beside
    `lora`, with the fields of adapter_config.json, go the options of an estimate: vocab_size, base_precision, ...

    \b
      {"id": 1, "model": "gpt2", "lora": {"r": 32, "target_modules": ["c_attn"]}}
    """
    from estimator.jobs.batch import answers

    failed = False
    for line, good in answers(_lines(file), offline=offline):
        failed = failed or not good
        print(line, flush=file == "-")
    return 1 if failed else 0


def _lines(file: str) -> Iterator[bytes]:
    """Raises NotFoundError where the file can't be opened, or not be read to its end."""
    from estimator.errors import NotFoundError
    from estimator.jobs.batch import lines_of

    try:
        with sys.stdin.buffer if file == "-" else open(file, "rb") as stream:
            yield from lines_of(stream)
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise NotFoundError(f"{file} can't be read: {reason}.", where="FILE", way_out="check the path") from error
