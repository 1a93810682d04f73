"""Parameters and memory against the rank, as svg, png or pdf through matplotlib (the extra `plot`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from estimator.errors import UnsupportedError, UsageError

_GREY = "#808080"  # readable on white and on black


def plot(cases: Sequence[Any], path: str) -> None:
    """Write the chart. Raises UsageError for another ending, UnsupportedError where matplotlib is not installed."""
    if Path(path).suffix.lower() not in (".svg", ".png", ".pdf"):
        raise UsageError(
            f"{path[:100]!r} ends in no known format.", where="--plot", way_out="end it in .svg, .png or .pdf"
        )
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        way_out = "pip install 'lora-size[plot]'"
        raise UnsupportedError("charts need matplotlib.", where="--plot", way_out=way_out) from error
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for label, line in _lines(cases).items():
        ranks = [case.r for case in line]
        left.plot(ranks, [case.parameters / 1e6 for case in line], marker="o", label=label)
        right.plot(ranks, [case.device_bytes / 1e9 for case in line], marker="o", label=label)
    for axes, title in ((left, "trainable parameters (million)"), (right, "memory on the device (GB)")):
        _dress(axes, title)
    left.legend(fontsize="small", framealpha=0, labelcolor=_GREY)
    try:
        figure.savefig(path, transparent=True)
    except OSError as error:
        way_out = "name a file in a folder that can be written"
        raise UsageError(
            f"{path[:100]!r} can't be written: {error.strerror}.", where="--plot", way_out=way_out
        ) from error


def _lines(cases: Sequence[Any]) -> dict[str, list[Any]]:
    lines: dict[str, list[Any]] = {}
    for case in cases:
        if case.error is None:
            label = f"{case.model}, {case.targets or 'default'}, {case.base_precision or 'stored'}"
            lines.setdefault(label, []).append(case)
    return {label: sorted(line, key=lambda case: case.r) for label, line in lines.items()}


def _dress(axes: Any, title: str) -> None:
    axes.set_xlabel("r", color=_GREY)
    axes.set_ylabel(title, color=_GREY)
    axes.set_ylim(bottom=0)
    axes.tick_params(colors=_GREY)
    axes.grid(alpha=0.3, color=_GREY)
    for spine in axes.spines.values():
        spine.set_color(_GREY)
