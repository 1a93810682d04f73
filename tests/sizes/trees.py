"""Module trees for tests, from recorded rows."""

from __future__ import annotations

from estimator.architecture.module import Module, ModuleTree, Parameter


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


def one_linear(config):
    """A Linear of 192 x 128 and a head of 320 x 128."""
    modules = (
        Module("", "LlamaForCausalLM", "other"),
        Module("layers.0.q_proj", "Linear", "Linear", (Parameter("weight", (192, 128), "BF16"),)),
        Module("lm_head", "Linear", "Linear", (Parameter("weight", (320, 128), "BF16"),)),
    )
    return ModuleTree(architecture=None, config=config, modules=modules, tied={}, output_embedding="lm_head")
