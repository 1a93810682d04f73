"""LoRA's relatives: what each adds to a LoRA layer of a Linear, or refuses.

peft 0.21.2: LoraLayer.resolve_lora_variant (peft/tuners/lora/layer.py), peft/tuners/lora/variants.py,
MontecloraSampler (peft/tuners/lora/monteclora.py).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from estimator.errors import InvalidLoraError
from estimator.lora.weights import Matrix, Weight
from estimator.request.lora_config import LoraConfig
from estimator.request.patterns import MAX_PATTERNS

# The fields that LoraConfig tags with is_lora_variant, and "mica", a value of init_lora_weights that is one too.
VARIANTS = (
    "use_dora", "velora_config", "alora_invocation_tokens", "monteclora_config", "use_bdlora", "arrow_config",
    "kasa_config",
)  # fmt: skip


class Packing(NamedTuple):
    """How a quantised layer holds its weight."""

    scheme: str
    dtype: str  # of the tensor; "F4" for four bits whose bytes are seen as floats
    unpacked: str | None = None  # of a 4-bit weight: the dtype that PEFT unpacks it to for DoRA


class BlockDiagonal(NamedTuple):
    """BdLoRA for one module: which matrix is block-diagonal."""

    matrix: str | None  # "A", "B" or neither
    blocks: int
    kind: str = "use_bdlora"


class Variant(NamedTuple):
    """What a LoRA layer is beside plain LoRA, as far as tensors depend on it."""

    kind: str  # one of VARIANTS, or "mica"
    size: int = 0  # num_groups of VeLoRA, num_samples of MonteCLoRA, qalora_group_size
    bd_a: tuple[str, ...] = ()
    bd_b: tuple[str, ...] = ()
    blocks: int = 1
    strict: bool = True

    def for_module(self, name: str) -> BlockDiagonal:
        """BdLoraLinearVariant: a pattern matches where it is a part of the module's name."""
        in_a, in_b = any(p in name for p in self.bd_a), any(p in name for p in self.bd_b)
        if in_a and in_b:
            raise _refused(
                f"{name} matches target_modules_bd_a and target_modules_bd_b.",
                "use_bdlora",
                "make one of them narrower",
            )
        if self.strict and not in_a and not in_b:
            raise _refused(
                f"{name} matches neither target_modules_bd_a nor target_modules_bd_b.",
                "use_bdlora",
                "set match_strict to false",
            )
        return BlockDiagonal("A" if in_a else "B" if in_b else None, self.blocks)


def asked_variants(config: LoraConfig) -> Mapping[str, Variant]:
    """Every variant that a config asks for, by its name; "use_qalora" is heard by GPTQ's layers alone."""
    names = [name for name in VARIANTS if _asks(name, getattr(config, name))]
    if config.init_lora_weights == "mica":
        names.append("mica")
    if config.use_qalora:
        names.append("use_qalora")
    return {
        name: _bdlora(config.use_bdlora or {}) if name == "use_bdlora" else Variant(name, size=_size(config, name))
        for name in names
    }


def _asks(name: str, value: Any) -> bool:
    """A sub-config asks for its variant even where it is empty, and no invocation tokens at all do on bitsandbytes."""
    return isinstance(value, Mapping) or (value is not None if name == "alora_invocation_tokens" else bool(value))


class Hearing(NamedTuple):
    """What the layer of a quantisation scheme makes of variants; most do not look at all of them."""

    heard: tuple[str, ...] = ()  # the first that is asked for acts
    refused: tuple[str, ...] = ()
    others_refused: bool = False  # else they are passed over in silence


_BITSANDBYTES = Hearing(("arrow_config", "alora_invocation_tokens", "use_dora"), refused=("velora_config",))
_STRICT = Hearing(refused=("use_dora", "velora_config"), others_refused=True)
# peft 0.21.2: resolve_lora_variant and __init__ of lora/bnb.py, gptq.py, awq.py, aqlm.py, eetq.py, hqq.py.
_QUANTISED: Mapping[str, Hearing] = {
    "bitsandbytes_4bit": _BITSANDBYTES,
    "bitsandbytes_8bit": _BITSANDBYTES,
    "gptq": Hearing(("use_qalora",), refused=("use_dora", "velora_config")),
    "awq": _STRICT,
    "aqlm": _STRICT,
    "eetq": _STRICT,
    "hqq": Hearing(("use_dora",), refused=("velora_config",)),
}
WITHOUT_LORA_BIAS = ("hqq", "torchao")
PACKED = frozenset(_QUANTISED)  # kinds of layers of their own, whose weights are not the logical ones
OWN_LAYERS = PACKED | {"torchao"}  # kinds of layers of their own, which go before those of parameters
EIGHT_BIT_FLOATS = ("F8_E4M3", "F8_E5M2")
INITIALISES_DEQUANTISED = ("bitsandbytes_4bit", "bitsandbytes_8bit")  # OLoRA alone


def variant_for(asked: Mapping[str, Variant], scheme: str | None, allowed: tuple[str, ...] = ()) -> Variant | None:
    """resolve_lora_variant of a layer: the one variant that acts on it.

    `allowed` are the variants of an unquantised layer's kind; () stands for a Linear's, all of them. Raises
    InvalidLoraError for a variant, or for several, that the layer's class does not take.
    """
    if not asked:
        return None
    hearing = _QUANTISED.get(scheme or "")
    if hearing is None:
        return _unquantised(heard_unquantised(asked), allowed)
    for name in asked:
        if name in hearing.refused or (hearing.others_refused and name in heard_unquantised(asked)):
            raise _refused(f"{name} does not work on {scheme} layers.", name, "leave it out, or load another base")
    return next((asked[name] for name in hearing.heard if name in asked), None)


def refuse_in_8_bit_floats(name: str, variant: Variant | BlockDiagonal) -> None:
    """Raises InvalidLoraError where a variant begins with what torch does not compute in the dtype of a layer's weight.

    DoRA takes the norm of a product; BdLoRA and MonteCLoRA draw from a uniform distribution (torch 2.13).
    """
    if variant.kind in ("use_dora", "monteclora_config") or (isinstance(variant, BlockDiagonal) and variant.matrix):
        way_out = "leave it out, or load a base that is not in 8-bit floats"
        raise _refused(
            f"{variant.kind} does not work on {name}, whose weight is an 8-bit float.", variant.kind, way_out
        )


def heard_unquantised(asked: Mapping[str, Variant]) -> dict[str, Variant]:
    """The variants that layers of an unquantised base look at."""
    return {
        name: variant
        for name, variant in asked.items()
        if name != "use_qalora" and (name != "alora_invocation_tokens" or variant.size)
    }


def _unquantised(asked: Mapping[str, Variant], allowed: tuple[str, ...]) -> Variant | None:
    if len(asked) > 1:
        raise _refused(f"{' and '.join(asked)} do not work together.", next(iter(asked)), "use one of them")
    for name, variant in asked.items():
        if allowed and name not in allowed:
            raise _refused(f"{name} works for Linear modules alone.", name, "target no other modules")
        return variant
    return None


def _size(config: LoraConfig, kind: str) -> int:
    if kind == "use_qalora":
        return config.qalora_group_size
    if kind == "alora_invocation_tokens":
        return len(config.alora_invocation_tokens or ())
    if kind == "velora_config":
        return (config.velora_config or {}).get("num_groups", 64)
    if kind == "monteclora_config":
        return (config.monteclora_config or {}).get("num_samples", 8)
    return 0


def _bdlora(given: Mapping[str, Any]) -> Variant:
    blocks = given.get("nblocks", 1)
    if not isinstance(blocks, int) or blocks < 1:
        raise _refused(f"nblocks is {str(blocks)[:40]!r}.", "use_bdlora.nblocks", "give a positive number")
    if any(len(given.get(name) or ()) > MAX_PATTERNS for name in ("target_modules_bd_a", "target_modules_bd_b")):
        raise _refused(f"use_bdlora names more than {MAX_PATTERNS:,} modules.", "use_bdlora", "name fewer")
    return Variant(
        "use_bdlora",
        bd_a=tuple(given.get("target_modules_bd_a") or ()),
        bd_b=tuple(given.get("target_modules_bd_b") or ()),
        blocks=blocks,
        strict=given.get("match_strict", True),
    )


def vary_linear(
    weights: list[Weight], variant: Variant | BlockDiagonal | None, matrix: Matrix, rank: int
) -> list[Weight]:
    """The weights of a Linear's LoRA layer as the variant leaves them. Raises InvalidLoraError as the variant would."""
    if variant is None:
        return weights
    return _VARY[variant.kind](weights, variant, matrix, rank)


def _dora(weights: list[Weight], variant: Variant, matrix: Matrix, rank: int) -> list[Weight]:
    return [*weights, Weight("lora_magnitude_vector", (matrix.out_features,), part="dora")]


def _mica(weights: list[Weight], variant: Variant, matrix: Matrix, rank: int) -> list[Weight]:
    """lora_B is frozen: it is saved but not trained."""
    return [w._replace(trainable=False) if w.suffix.startswith("lora_B") else w for w in weights]


def _bdlora_weights(weights: list[Weight], variant: BlockDiagonal, matrix: Matrix, rank: int) -> list[Weight]:
    if variant.matrix is None:
        return weights
    if matrix.transposed:
        raise _refused("BdLoRA does not work for Conv1D.", "use_bdlora", "target Linear modules")
    rows, columns = (rank, matrix.in_features) if variant.matrix == "A" else (matrix.out_features, rank)
    if rows % variant.blocks or columns % variant.blocks:
        raise _refused(
            f"a matrix of {rows} x {columns} does not divide into {variant.blocks} blocks.",
            "use_bdlora.nblocks",
            "choose a divisor",
        )
    changed = f"lora_{variant.matrix}"
    others = [w for w in weights if not w.suffix.startswith(changed)]
    return [*others, Weight(f"{changed}.weight", (rows, columns // variant.blocks))]


def _velora(weights: list[Weight], variant: Variant, matrix: Matrix, rank: int) -> list[Weight]:
    """A projection of the input features, split into groups and padded where they do not come out even."""
    group = -(-matrix.in_features // variant.size)
    return [*weights, Weight("lora_velora_embed", (group,), trainable=False, parameter=False)]


def _monteclora(weights: list[Weight], variant: Variant, matrix: Matrix, rank: int) -> list[Weight]:
    sampler = "lora_monteclora_sampler."
    return [
        *weights,
        Weight(sampler + "std_prior", (rank,)),
        Weight(sampler + "expert_weights_prior", (variant.size,)),
        Weight(sampler + "gaussian_var_prior", (rank, rank), trainable=False, parameter=False, cast=False),
        Weight(sampler + "expert_weights", (variant.size,), trainable=False, parameter=False, cast=False),
    ]


def _kasa(weights: list[Weight], variant: Variant, matrix: Matrix, rank: int) -> list[Weight]:
    if matrix.transposed:
        raise _refused("KaSA does not support Conv1D.", "kasa_config", "target Linear modules")
    least = min(matrix.in_features, matrix.out_features)
    if rank >= least:
        raise _refused(
            f"KaSA needs r < min(in, out), and r = {rank} is not below {least}.",
            "r",
            "choose a smaller r",
        )
    return [*weights, Weight("lora_diag", (rank,))]


def _qalora(weights: list[Weight], variant: Variant, matrix: Matrix, rank: int) -> list[Weight]:
    if matrix.in_features % variant.size:
        raise _refused(
            f"{matrix.in_features} input features are no multiple of qalora_group_size = {variant.size}.",
            "qalora_group_size",
            "choose a divisor",
        )
    return [Weight("lora_A.weight", (rank, matrix.in_features // variant.size)), *weights[1:]]


def _arrow(weights: list[Weight], variant: Variant, matrix: Matrix, rank: int) -> list[Weight]:
    raise _refused(
        "arrow_config routes between finished adapters; PEFT sets it up in create_arrow_model, and from a config alone "
        "it ends in an AttributeError of its own.",
        "arrow_config",
        "leave it out",
    )


def _unchanged(weights: list[Weight], variant: Variant, matrix: Matrix, rank: int) -> list[Weight]:
    return weights


_VARY: Mapping[str, Callable[..., list[Weight]]] = {
    "use_dora": _dora,
    "mica": _mica,
    "use_bdlora": _bdlora_weights,
    "velora_config": _velora,
    "monteclora_config": _monteclora,
    "kasa_config": _kasa,
    "use_qalora": _qalora,
    "arrow_config": _arrow,
    "alora_invocation_tokens": _unchanged,  # decides when the adapter acts
}


def _refused(what: str, where: str, way_out: str) -> InvalidLoraError:
    return InvalidLoraError(what, where=where, way_out=way_out)
