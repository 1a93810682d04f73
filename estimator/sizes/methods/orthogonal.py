"""What OFT and BOFT keep of one adapted layer, by the name behind the layer's own: blocks of orthogonal matrices.

peft 0.21.2, tuners/oft/layer.py and tuners/boft/layer.py.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil

from estimator.architecture.module import VARIES
from estimator.sizes.methods.adapted_layer import Adapted, Config, Shapes


def boft(config: Config, layer: Adapted) -> Shapes:
    """Blocks are given by their size or by their number, the other being 0.

    Of several butterfly factors PEFT makes one where its CUDA extension cannot be built: which, the file alone tells.
    """
    size, number = config.get("boft_block_size", 4), config.get("boft_block_num", 0)
    size, number = (size, layer.into // size) if size else (layer.into // number, number)
    one = config.get("boft_n_butterfly_factor", 1) == 1
    return {"boft_R": (1, number, size, size) if one else VARIES, "boft_s": (layer.out, 1)}


def oft(config: Config, layer: Adapted) -> Shapes:
    """The triangle above the diagonal of each block; before PEFT 0.16 whole blocks, before 0.14 on the output.

    `r` is the number of blocks where their size is 0; either is taken for the nearest that divides the input.
    """
    share = bool(config.get("block_share"))
    if "oft_block_size" not in config:
        block = ceil(layer.out / config["r"])
        return {"oft_r": (1 if share else config["r"], block, block)}
    size, blocks = config["oft_block_size"], config.get("r")
    if size:
        size = _divisor(layer.into, size)
        blocks = layer.into // size
    else:
        blocks = _divisor(layer.into, blocks)
        size = layer.into // blocks
    if "use_cayley_neumann" not in config:
        return {"oft_r": (1 if share else blocks, size, size), "oft_s": (layer.out, 1)}
    name = "oft_embedding_R" if layer.is_embedding else "oft_R"
    return {f"{name}.weight": (1 if share else blocks, size * (size - 1) // 2)}


@lru_cache(maxsize=4096)
def _divisor(size: int, wanted: int) -> int:
    """The divisor nearest to `wanted`, the smaller of two (`adjust_oft_parameters`)."""
    if wanted >= size:
        return size
    larger = next(number for number in range(wanted, size + 1) if size % number == 0)
    smaller = next(number for number in range(wanted, 0, -1) if size % number == 0)
    return smaller if wanted - smaller <= larger - wanted else larger
