"""Parameters and memory against the rank, and the frontier of what fits, through matplotlib (the extra `plot`).

Grey axes, colours of middle brightness and no background: readable on white and on black.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from estimator.errors import UnsupportedError, UsageError
from estimator.report.units import decimal_size
from estimator.source.plain import plain

_GREY = "#808080"
_COLOURS = ("#3b8fd0", "#d9730d", "#2e9e5b", "#c2569a", "#8a6fd1", "#a08000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_FEW_TICKS = 8
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "lora-size"}  # text stays text, the same chart the same file


def require(path: str) -> None:
    """Raises UsageError for another ending, UnsupportedError where matplotlib is not installed; writes nothing."""
    if Path(path).suffix.lower() not in _WRITERS:
        way_out = "end it in .svg, .png or .html"
        raise UsageError(f"{path[:100]!r} ends in no known format.", where="--plot", way_out=way_out)
    if not Path(path).absolute().parent.is_dir():
        way_out = "name a file in a folder that is there"
        raise UsageError(f"there is no folder for {path[:100]!r}.", where="--plot", way_out=way_out)
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        way_out = "pip install 'lora-size[plot]'"
        raise UnsupportedError("charts need matplotlib, not installed here.", where="--plot", way_out=way_out)


def plot(cases: Sequence[Any], frontier: Sequence[Any], gpu_memory: int | None, path: str) -> None:
    """Write the chart. Raises what `require` raises, and UsageError where the file can't be written."""
    require(path)
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        figure = _figure(cases, frontier, gpu_memory)
        try:
            _WRITERS[Path(path).suffix.lower()](figure, path)
        except OSError as error:
            way_out = "name a file that can be written"
            what = f"{path[:100]!r} can't be written: {error.strerror}."
            raise UsageError(what, where="--plot", way_out=way_out) from error


def _figure(cases: Sequence[Any], frontier: Sequence[Any], gpu_memory: int | None) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = _lines(cases)
    figure = Figure(figsize=(13 if gpu_memory else 10, 4.2 + 0.12 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3 if gpu_memory else 2)
    for number, (label, line) in enumerate(lines.items()):
        look = {"color": _COLOURS[number % len(_COLOURS)], "marker": _MARKERS[number % len(_MARKERS)], "label": label}
        _draw(axes, line, look)
    ranks = sorted({case.r for line in lines.values() for case in line})
    _dress(axes[0], ("what trains", "rank r", "parameters (million)"), ranks)
    _dress(axes[1], ("memory on each GPU, middle", "rank r", "GB"), ranks)
    if gpu_memory:
        points = [(case.parameters / 1e6, case.device_upper_bytes / 1e9) for case in reversed(frontier)]
        if points:
            axes[2].step(*zip(*points, strict=True), where="pre", color=_GREY, linestyle="--")
        _dress(axes[2], ("its ceiling; dashed: the best that fits", "parameters (million)", "GB"))
        _limit(axes[1], gpu_memory)
        _limit(axes[2], gpu_memory)
    handles, labels = axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels) or 1),
                           fontsize="small", framealpha=0, labelcolor=_GREY)  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)  # dollars end expressions here
    return figure


def _draw(axes: Any, line: Sequence[Any], look: dict[str, str]) -> None:
    axes[0].plot([case.r for case in line], [case.parameters / 1e6 for case in line], **look)
    sized = [case for case in line if case.device_bytes is not None]
    axes[1].plot([case.r for case in sized], [case.device_bytes / 1e9 for case in sized], **look)
    if len(axes) > 2:
        parameters = [case.parameters / 1e6 for case in sized]
        ceilings = [case.device_upper_bytes / 1e9 for case in sized]
        axes[2].scatter(parameters, ceilings, color=look["color"], marker=look["marker"])


def _limit(axes: Any, gpu_memory: int) -> None:
    axes.set_ylim(top=max(axes.get_ylim()[1], 1.1 * gpu_memory / 1e9))
    axes.axhline(gpu_memory / 1e9, color="#c04040", linewidth=1)
    axes.annotate(f"GPU {decimal_size(gpu_memory)}", (0.01, gpu_memory / 1e9), xycoords=("axes fraction", "data"),
                  va="bottom", fontsize="small", color="#c04040")  # fmt: skip


def _lines(cases: Sequence[Any]) -> dict[str, list[Any]]:
    """By label: the cases of one model, target set and precision, by rank."""
    lines: dict[str, list[Any]] = {}
    for case in cases:
        if case.parameters is not None:  # the memory alone may be unknown
            label = plain(f"{case.model}, {case.targets or 'default'}, {case.base_precision or 'stored'}")
            lines.setdefault(label, []).append(case)
    return {label: sorted(line, key=lambda case: case.r) for label, line in lines.items()}


def _dress(axes: Any, texts: tuple[str, str, str], ticks: Sequence[int] = ()) -> None:
    """Texts: title, x and y axis with its unit."""
    axes.set_title(texts[0], color=_GREY, fontsize="medium")
    axes.set_xlabel(texts[1], color=_GREY)
    axes.set_ylabel(texts[2], color=_GREY)
    axes.set_ylim(bottom=0)
    if 0 < len(ticks) <= _FEW_TICKS:
        axes.set_xticks(ticks)
    axes.set_facecolor("none")
    axes.tick_params(colors=_GREY)
    axes.grid(alpha=0.3, color=_GREY)
    for spine in axes.spines.values():
        spine.set_color(_GREY)


def _svg(figure: Any, path: Any) -> None:
    figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def _png(figure: Any, path: str) -> None:
    figure.savefig(path, format="png", transparent=True, dpi=150)


def _html(figure: Any, path: str) -> None:
    """The SVG in a page that follows the reader's light or dark; nothing is loaded from elsewhere."""
    from io import StringIO

    text = StringIO()
    _svg(figure, text)
    drawing = text.getvalue()
    page = (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<meta name="color-scheme" content="light dark">\n'
        "<title>lora-size sweep</title>\n<style>svg { max-width: 100%; height: auto }</style>\n"
        + drawing[drawing.index("<svg") :]
        + "</html>\n"
    )
    Path(path).write_text(page, encoding="utf-8")


_WRITERS: dict[str, Callable[[Any, str], None]] = {".svg": _svg, ".png": _png, ".html": _html}
