"""Module trees for tests: from recorded rows, and from models that torch has built."""

from __future__ import annotations

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.dtypes import FROM_TORCH

KINDS = {"Linear": "Linear", "NonDynamicallyQuantizableLinear": "Linear", "Conv1D": "Conv1D", "Embedding": "Embedding"}


def tree_of_row(row, dtype):
    """The tree of a recorded row; every floating parameter is stored in `dtype`."""
    modules = tuple(
        Module(
            name,
            cls,
            kind,
            tuple(Parameter(p, tuple(shape), dtype) for p, shape in parameters),
            tuple(Parameter(b, tuple(shape), kept, fixed) for b, shape, kept, fixed in buffers),
        )
        for name, cls, kind, parameters, buffers in row["modules"]
    )
    return ModuleTree(
        architecture=None,
        config=row["config"],
        modules=modules,
        tied=row["tied"],
        output_embedding=row["output_embedding"],
        keep_in_fp32=tuple(row["keep_in_fp32"]),
    )


def tree_of_model(model, fixed=()):
    """The tree of a transformers model; buffers named in `fixed` keep their dtype whatever the model is loaded in."""

    def values(tensors):
        return tuple(
            Parameter(
                name, tuple(t.shape), FROM_TORCH[str(t.dtype).removeprefix("torch.")], name.endswith(tuple(fixed))
            )
            for name, t in tensors
        )

    modules = tuple(
        Module(
            name,
            type(module).__name__,
            KINDS.get(type(module).__name__, "other"),
            values(module.named_parameters(recurse=False, remove_duplicate=False)),
            values(module.named_buffers(recurse=False)),
        )
        for name, module in model.named_modules()
    )
    head = model.get_output_embeddings()
    return ModuleTree(
        architecture=type(model).__name__,
        config=model.config.to_dict(),
        modules=modules,
        tied=dict(model.all_tied_weights_keys),
        output_embedding=next((name for name, module in model.named_modules() if module is head), None),
        keep_in_fp32=tuple(model._keep_in_fp32_modules or ()),
        keep_in_fp32_strict=tuple(model._keep_in_fp32_modules_strict or ()),
    )
