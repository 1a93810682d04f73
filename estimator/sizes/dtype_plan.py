"""The dtype that each parameter and buffer has once it is loaded (transformers 5.23.0, modeling_utils.py)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from estimator.architecture.module import ModuleTree, Parameter, named_parameters
from estimator.checkpoint.checkpoint import Tensor

FLOATS = frozenset({"F32", "F16", "BF16", "F64"})  # what torch accepts as a default dtype
# What from_pretrained casts; 8-bit floats stay where a quantiser keeps them.
CAST = FLOATS | {"F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}

_REASSEMBLED = re.compile(r"weight(?!\w)")  # how WeightTransform reads the pattern "weight": output_weights is none

DtypeOf = Callable[[str, Parameter], str]


def dtypes(tree: ModuleTree, dtype: str, stored: Mapping[str, Tensor] | None = None) -> DtypeOf:
    """What a parameter's or buffer's run-time dtype is, by its full name (`_get_dtype_plan`).

    Integers and dtypes that the class fixes stay; `_keep_in_fp32_modules` become float32 under float16,
    `_keep_in_fp32_modules_strict` under bfloat16 as well, and what a file has of these whatever it is; what no file
    holds does not. stored: the file's floats by name, where it is one whose weights keep their dtype.
    """
    patterns = list(tree.keep_in_fp32) if dtype == "F16" else []
    patterns += tree.keep_in_fp32_strict if dtype in ("F16", "BF16") else ()
    kept = re.compile("|".join(pattern.replace("*", ".*") for pattern in patterns)) if patterns else None
    renamed = _shapes_of_renamed(tree, stored) if stored else ()

    def dtype_of(name: str, parameter: Parameter) -> str:
        if parameter.fixed or parameter.dtype not in CAST:
            is_read = parameter.persistent and (stored is None or name in stored)
            return "F32" if is_read and kept is not None and kept.search(name) else parameter.dtype
        if stored is not None and parameter.persistent and _REASSEMBLED.search(name):
            if name in stored:
                return stored[name].dtype
            if not stored or name in tree.tied or parameter.shape in renamed:  # what no file holds is made anew
                return parameter.dtype
        return "F32" if kept and kept.search(name) and name not in tree.unstored else dtype

    return dtype_of


def _shapes_of_renamed(tree: ModuleTree, stored: Mapping[str, Tensor]) -> frozenset[tuple[int, ...]]:
    """Shapes of what the file holds under names that are not the run-time ones."""
    names = {name for name, _ in named_parameters(tree.modules)}
    return frozenset(tensor.shape for name, tensor in stored.items() if name not in names)
