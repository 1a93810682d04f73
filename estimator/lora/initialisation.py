"""Values of init_lora_weights that refuse, or that change the matrices' shapes.

peft 0.21.2, peft/tuners/lora/layer.py: pissa_init, olora_init, orthogonal_init, mica_init, loftq_init,
reset_lora_parameters. CorDA, EVA and LoRA-GA read prepared data first; their matrices are of the usual shapes, but
for a LoRA-GA whose 2 r is above a side of the weight.
"""

from __future__ import annotations

from estimator.errors import InvalidLoraError
from estimator.lora.dtypes import is_float

_SVD_DTYPES = ("F32", "F16", "BF16")


def check_initialisation(
    init: bool | str, kind: str, rank: int, in_features: int, out_features: int, dtype: str
) -> None:
    """Raises InvalidLoraError where a layer of this kind ("Linear", "Embedding", "Conv") refuses."""
    if not isinstance(init, str) or not init:
        return
    if kind == "Linear":
        _check_linear(init, rank, min(in_features, out_features), dtype)
    elif kind == "Embedding":
        if init.lower() == "mica":
            _check_rank(init, rank, min(in_features, out_features))
        if init == "loftq":
            raise _refused(init, "does not work for Embedding layers")
    elif init.lower() != "gaussian" and init != "lora_ga":
        raise _refused(init, "does not work for convolutions")


def check_on_torchao(name: str, init: bool | str, *, turns: bool) -> None:
    """Raises InvalidLoraError for what PEFT asks of a torchao weight in vain (torchao 0.18.0).

    It has no decomposition, which PiSSA, OLoRA and MiCA begin with. turns: whether DoRA adds the matrices' product to a
    weight turned around that is not square: PEFT's layer for torchao keeps fan_in_fan_out, which others set right.
    """
    if isinstance(init, str) and (init.startswith("pissa") or init.lower() in ("olora", "mica")):
        raise _refused(init, f"takes a weight apart, which that of {name} in torchao cannot be")
    if turns:
        raise InvalidLoraError(
            f"use_dora with fan_in_fan_out fails on {name}, whose weight torchao holds and is not square.",
            where="fan_in_fan_out",
            way_out="leave it out",
        )


def _check_linear(init: str, rank: int, smaller: int, dtype: str) -> None:
    name = init.lower()
    known = init.startswith(("pissa", "corda")) or name in ("olora", "mica", "gaussian")
    if not known and init not in ("loftq", "eva", "orthogonal", "lora_ga"):
        raise _refused(init, "is no initialisation that PEFT knows")
    if (init.startswith(("pissa", "corda")) or name in ("olora", "mica")) and dtype not in _SVD_DTYPES:
        raise _refused(init, f"needs a base in float32, float16 or bfloat16, not {dtype}")
    if init.startswith("pissa") and init != "pissa":
        _check_pissa_iterations(init)
    if name == "mica" or init.startswith("corda"):  # crop_corda_eigens finds no more directions than the weight has
        _check_rank(init, rank, smaller)
    if init == "orthogonal" and not is_float(dtype):
        raise _refused(init, f"needs a base in floating point, not {dtype}")
    if init == "orthogonal" and rank % 2:
        raise _refused(init, f"needs an even r, not {rank}")


def _check_pissa_iterations(init: str) -> None:
    parts = init.split("_niter_")
    if len(parts) != 2 or not _is_number(parts[1]):
        raise _refused(init, "should be pissa or pissa_niter_[number]")


def _is_number(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


def _check_rank(init: str, rank: int, smaller: int) -> None:
    if rank > smaller:
        raise _refused(init, f"needs r <= min(in, out), and r = {rank} is above {smaller}")


def _refused(init: str, why: str) -> InvalidLoraError:
    return InvalidLoraError(
        f"init_lora_weights={init[:60]!r} {why}.",
        where="init_lora_weights",
        way_out="leave it at true, or change what it asks for",
    )


Shapes = tuple[tuple[int, ...], tuple[int, ...]]


def ranks_after_initialisation(
    init: bool | str, rank: int, in_features: int, out_features: int, transposed: bool
) -> Shapes:
    """Shapes of lora_A and lora_B of a Linear; matrix factorisations give no more rows than the weight has."""
    name = init if isinstance(init, str) else ""
    is_pissa = name.startswith("pissa")
    if not is_pissa and name.lower() != "olora" and init != "loftq":
        return (rank, in_features), (out_features, rank)
    kept = min(rank, in_features, out_features)
    if transposed and not is_pissa:  # the stored weight is factorised: a Conv1D's matrices come out turned
        return (kept, out_features), (in_features, kept)
    return (kept, in_features), (out_features, kept)


def makes_its_own(init: bool | str) -> bool:
    """Whether a Linear's matrices are made anew from the rank, where they were another layer's turned ones before."""
    if not isinstance(init, str):
        return False
    return init.startswith(("pissa", "corda")) or init.lower() in ("olora", "mica") or init in ("loftq", "orthogonal")


def wrapped_parameter_shapes(init: str, rank: int, usual: Shapes, weight: tuple[int, ...] | None, dtype: str) -> Shapes:
    """ParamWrapper.update_layer: matrices of a wrapped parameter; several initialisations look at `module.weight`.

    `weight` is that weight's shape, None where the module has none. Raises InvalidLoraError where PEFT ends in one.
    """
    _check_wrapped(init, rank, usual, dtype)
    if weight is None:
        raise _refused(init, "looks at a parameter called weight, which this module does not have")
    if init == "lora_ga":
        return usual
    (_, in_features), (out_features, _) = usual
    if init == "orthogonal":
        return (rank, in_features), (out_features, rank)
    if len(weight) == 3:
        return _factors_of_a_stack(init, rank, weight)
    if len(weight) != 2:
        raise _refused(init, f"does not work on a weight of {len(weight)} dimensions")
    return ranks_after_initialisation(init, rank, weight[1], weight[0], False)


def _factors_of_a_stack(init: str, rank: int, weight: tuple[int, ...]) -> Shapes:
    """olora_init and pissa_init on a weight of three dimensions (a convolution's, experts'): torch factorises each of
    the matrices in it, and PEFT cuts the first dimensions to r, which are others then. Their product has to fit.
    """
    stack, rows, columns = weight
    kept, cut, of_rows = min(rows, columns), min(rank, stack), min(rank, rows)
    if init.lower() == "olora" and cut in (1, stack) and of_rows in (1, rows):
        return (cut, kept, columns), (stack, of_rows, kept)
    if init == "pissa" and cut >= kept and cut == of_rows and stack in (1, rows):
        return (cut, columns), (stack, of_rows)
    raise _refused(init, f"does not work on a weight of {stack:,} x {rows:,} x {columns:,} at r = {rank}")


def _check_wrapped(init: str, rank: int, usual: Shapes, dtype: str) -> None:
    if init.lower() in ("mica", "loftq"):
        raise _refused(init, "does not work with target_parameters")
    (_, in_features), (out_features, _) = usual
    _check_linear(init, rank, min(in_features, out_features), dtype)
