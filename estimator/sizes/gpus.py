"""Memory that CUDA reports on a GPU, in bytes: what `torch.cuda.get_device_properties(0).total_memory` says.

Figures are GiB with two digits, a little below the nominal size, and not confirmed on every card: drivers and ECC
settings move some of them by a few hundred MB. `--gpu-memory` takes the bytes that a machine really reports.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from estimator.errors import UsageError

_GIB = {
    "t4": 14.56, "v100-16gb": 15.77, "v100-32gb": 31.73, "p100": 15.89, "l4": 22.03, "a10": 21.98, "a10g": 21.98,
    "a100-40gb": 39.39, "a100-80gb": 79.14, "h100": 79.10, "h100-80gb": 79.10, "h200": 139.80, "b200": 178.35,
    "l40s": 44.39, "a6000": 47.43, "rtx3090": 23.68, "rtx4090": 23.64, "rtx5090": 31.36, "rtx4080": 15.70,
}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|k|m|g|t)(i?)(b?)", re.IGNORECASE)
_STEPS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def gpu_bytes(name: str) -> int:
    """Bytes that CUDA reports on a GPU of this name. Raises UsageError for a name that is not in the table."""
    key = re.sub(r"[\s_]", "", name.lower()).removeprefix("nvidia").replace("geforce", "")
    key = {"a100": "a100-80gb", "v100": "v100-16gb", "4090": "rtx4090", "3090": "rtx3090"}.get(key, key)
    if key not in _GIB:
        close = get_close_matches(key, _GIB, n=1)
        way_out = f"did you mean {close[0]}?" if close else f"one of {', '.join(_GIB)}; or --gpu-memory 24GB"
        raise UsageError(f"there is no GPU {name[:60]!r} in the table.", where="--gpu", way_out=way_out)
    return int(_GIB[key] * 2**30)


def parse_size(text: str, option: str) -> int:
    """`24GB`, `24GiB` or bytes as bytes. Raises UsageError for what is no size."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or len(text) > 40 or (match[3] and not match[2]):
        raise UsageError(f"{text[:60]!r} is no size.", where=option, way_out="write 24GB, 24GiB or a number of bytes")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _STEPS[match[2].lower()])
