"""Sides of the windows in which Swin and its kin attend, in patches (transformers 5.23.0, models/swin*).

Swin v2's and Swin2SR's end with the image, whose side halves from stage to stage in Swin v2; of an image that is no
square the height counts (`Swinv2Layer._compute_window_shift`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from estimator.errors import MalformedConfigError

_ENDING_WITH_THE_IMAGE = ("Swinv2", "Swin2SR")
_STAGE = re.compile(r"(?:^|\.)layers\.(\d+)\.blocks\.")


def window_side(cls: str, module: str, read: Callable[[str], Any]) -> int | None:
    """None where the config does not say. Raises MalformedConfigError for sides of which the class builds no window.

    cls, module: the attention's class and full name. read: a field's value, None where there is none.
    """
    window = _whole("window_size", read("window_size"))
    if window is None or not cls.startswith(_ENDING_WITH_THE_IMAGE):
        return window
    image, patch = _side(read, "image_size"), _side(read, "patch_size")
    if image is None or patch is None:
        return None
    stage = _STAGE.search(module)
    smaller = min(window, image // patch >> min(int(stage[1]) if stage else 0, 64))
    if not smaller:
        raise _refusal("image_size", read("image_size"), f"no patch is left of it at {module}")
    return smaller


def _side(read: Callable[[str], Any], field: str) -> int | None:
    said = read(field)
    return _whole(field, said[0] if isinstance(said, (list, tuple)) and said else said)


def _whole(field: str, side: Any) -> int | None:
    if side is not None and (type(side) is not int or side < 1):
        raise _refusal(field, side, "no number of 1 or more")
    return side


def _refusal(field: str, said: Any, why: str) -> MalformedConfigError:
    what = f"{field} is {repr(said)[:60]}, {why}."
    return MalformedConfigError(what, where="config.json", way_out=f"correct {field}, in config.json or in --set")
