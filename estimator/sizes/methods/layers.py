"""What methods other than LoRA keep of one adapted layer, by the name behind the layer's own.

peft 0.21.2, tuners/*/layer.py: shapes as `update_layer` makes them. `number` is the method's own size of this layer:
the rank, n_frequency or block_size, which a pattern may give to single layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

from estimator.architecture.module import VARIES
from estimator.request.patterns import fullmatching
from estimator.sizes.adapter_causes import Part
from estimator.sizes.methods.adapted_layer import Adapted, Config, Shapes
from estimator.sizes.methods.lycoris import loha, lokr
from estimator.sizes.methods.orthogonal import boft, oft


def is_named(module: str, names: Any) -> bool:
    """Whether a module's name is one of these, or ends with one."""
    return f".{module}".endswith(tuple(f".{name}" for name in names))


def places(number: int, *, least: int = 0) -> range:
    """So many of a thing. Raises ValueError for fewer than the method takes, and for more than any adapter has."""
    if not least <= number <= _MOST:
        raise ValueError("no such number")
    return range(number)


def _adamss(config: Config, layer: Adapted) -> Shapes:
    """Directions of the input, the bias a column more, and two matrices for each cluster of the output's rows.

    Which rows are one cluster, the weights decide; of a rank above 1, so does the cluster's.
    """
    rank = min(config["r"], layer.out, layer.into + layer.has_bias)
    clusters = places(min(config["num_subspaces"], layer.out), least=1)
    inner = (1, rank) if config["subspace_rank"] == 1 else VARIES
    halves = {f"adamss_A.{at}": inner for at in clusters} | {f"adamss_B.{at}": VARIES for at in clusters}
    return {**halves, "adamss_newB": (rank, layer.into + layer.has_bias)}


def _beft(config: Config, layer: Adapted) -> Shapes:
    return {"beft_bias": (1, layer.out)}


def _bone(config: Config, layer: Adapted) -> Shapes:
    return {"bone_block": _block(config, layer)}


def _miss(config: Config, layer: Adapted) -> Shapes:
    return {"miss_block": _block(config, layer)}


def _block(config: Config, layer: Adapted) -> tuple[int, ...]:
    rank, how = config["r"], config.get("init_weights")
    if how == "bat":
        return layer.out // rank, rank, rank
    return (rank, config["mini_r"]) if how == "mini" else (rank, layer.out)


def _c3a(config: Config, layer: Adapted) -> Shapes:
    return {"c3a_kernel": (layer.out // layer.number, layer.into // layer.number, layer.number)}


def _deft(config: Config, layer: Adapted) -> Shapes:
    rank = min(config["r"], layer.out)
    removed = {"deft_P": (layer.out, rank)}
    return removed if config.get("para") else {**removed, "deft_R": (rank, layer.into)}


def _delora(config: Config, layer: Adapted) -> Shapes:
    matrices = {"delora_A": (layer.number, layer.into), "delora_B": (layer.out, layer.number)}
    return {**matrices, "delora_lambda": (1,), "delora_w_norm": (layer.into,)}


def _fourierft(config: Config, layer: Adapted) -> Shapes:
    return {"fourierft_spectrum": (layer.number,)}


def _waveft(config: Config, layer: Adapted) -> Shapes:
    return {} if config.get("proportional_parameters") else {"waveft_spectrum": (layer.number,)}


def _frod(config: Config, layer: Adapted) -> Shapes:
    """A scale for each direction of the input, and the sparse values between them."""
    return {"frod_lambda_l": (layer.into,), "frod_lambda_s_values": (frod_values(config, layer),)}


def frod_values(config: Config, layer: Adapted) -> int:
    """How many places off the diagonal FRoD trains: at least one, where its share is not nought."""
    rate, places = config.get("sparse_rate", 0.01), layer.into * (layer.into - 1)
    if not 0 <= rate <= 1:
        raise ValueError("no share")
    chosen = min(int(layer.into * layer.into * rate), places)
    return max(1, chosen) if rate > 0 and places else chosen


def _glora(config: Config, layer: Adapted) -> Shapes:
    """Two corrections of the weight, one that the weight gives the bias, two of the bias; zeros for what is not."""
    out, into, said = layer.out, layer.into, (config["config_A_B"], config["config_C"], config["config_D_E"])
    of_weight, of_both, of_bias = said if layer.has_bias else (said[0], "none", "none")
    paths = {
        "A": _path(config, of_weight, (out, into), (out, 1)),
        "B": _path(config, of_weight, (out, into), (out, 1)),
        "C": _path(config, of_both, (into, 1), (into, 1)),
        "D": _path(config, of_bias, (out,), (out,)),
        "E": _path(config, of_bias, (out,), (out,)),
    }
    return {
        f"glora_{path}.{name}": Part(layer.dtype, shape) if name == "zeros" else shape
        for path, shapes in paths.items()
        for name, shape in shapes.items()
    }


def _path(config: Config, how: str, whole: tuple[int, ...], vector: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
    if how == "lora":
        return {"Xd": (whole[0], config["r"]), "Xu": (config["r"], whole[1])}
    if how in ("vector", "constant"):
        return {"X": vector if how == "vector" else (1,)}
    return {"zeros": whole}


def _gralora(config: Config, layer: Adapted) -> Shapes:
    parts, rank, hybrid = config["gralora_k"], config["r"], config.get("hybrid_r", 0)
    shapes: dict[str, tuple[int, ...]] = {
        "gralora_A": (parts, layer.into // parts, rank),
        "gralora_B": (parts, rank, layer.out // parts),
    }
    if hybrid:
        shapes |= {"gralora_A_general.weight": (hybrid, layer.into), "gralora_B_general.weight": (layer.out, hybrid)}
    return shapes


def _hira(config: Config, layer: Adapted) -> Shapes:
    """Of rank r whatever rank_pattern says, which `dispatch_default` does not hand on."""
    if layer.is_embedding:
        return {"hira_embedding_A": (config["r"], layer.out), "hira_embedding_B": (layer.into, config["r"])}
    return {"hira_A": (config["r"], layer.into), "hira_B": (layer.out, config["r"])}


def _hra(config: Config, layer: Adapted) -> Shapes:
    return {"hra_u": (layer.into, config["r"])}


def _ia3(config: Config, layer: Adapted) -> Shapes:
    feedforward = is_named(layer.name, config.get("feedforward_modules") or ())
    return {"ia3_l": (1, layer.into) if feedforward else (layer.out, 1)}


def _lily(config: Config, layer: Adapted) -> Shapes:
    rank, experts = config["r"], config["num_B"]
    return {
        "lily_A.weight": (rank, layer.into),
        "lily_B.weight": (experts * rank, layer.out),
        "lily_router.weight": (experts, rank),
    }


def _osf(config: Config, layer: Adapted) -> Shapes:
    """The directions below the rank that is kept: that of the first key of rank_pattern that the name has somewhere."""
    most, ranks = min(layer.out, layer.into), (config.get("rank_pattern") or {}).items()
    found = (rank for key, rank in ranks if fullmatching(f".*(?:{key}).*", [layer.name], where="rank_pattern"))
    said = next(found, config.get("effective_rank"))
    kept = most // 2 if said is None else int(most * said) if isinstance(said, float) and 0 < said <= 1 else int(said)
    low = most - max(0, min(most, kept))
    directions = {"U_low": (layer.out, low), "S_low": (low,), "V_low": (low, layer.into)}
    return {f"osf_svd_params.{name}": shape for name, shape in directions.items()}


def _peanut(config: Config, layer: Adapted) -> Shapes:
    rank, depth = config["r"], places(config.get("depth", 0))
    within = {f"peanut_{part}.{place}.weight": (rank, rank) for part in ("encoders", "decoders") for place in depth}
    return {"peanut_A.weight": (rank, layer.out), "peanut_B.weight": (layer.out, rank), **within}


def _poly(config: Config, layer: Adapted) -> Shapes:
    splits, skills, rank = config["n_splits"], config["n_skills"], config["r"]
    return {
        "poly_lora_A": (splits, skills, layer.into // splits, rank),
        "poly_lora_B": (splits, skills, rank, layer.out // splits),
        "poly_router.module_logits": (config["n_tasks"], splits * skills),
    }


def _psoft(config: Config, layer: Adapted) -> Shapes:
    rank = config["r"]
    rotation = (rank * (rank - 1) // 2,) if config.get("psoft_orth", True) else (rank, rank)
    vectors = [name for name in ("a", "b") if config.get(f"psoft_mag_{name}", True)]
    return {"psoft_R.weight": rotation, **{f"psoft_R.vector_{name}": (rank,) for name in vectors}}


def _randlora(config: Config, layer: Adapted) -> Shapes:
    shorter = min(layer.out, layer.into)
    bases = ceil(shorter / config["r"])
    return {"randlora_lambda": (config["r"], bases), "randlora_gamma": (bases, shorter)}


def _road(config: Config, layer: Adapted) -> Shapes:
    size = {"road_1": layer.out // 2, "road_2": layer.out, "road_4": 2 * layer.out}[config.get("variant", "road_1")]
    return {"road_theta": (size,), "road_alpha": (size,)}


def _shira(config: Config, layer: Adapted) -> Shapes:
    """As many single weights as a LoRA of this rank has, and where they lie."""
    weights = config["r"] * (layer.out + layer.into)
    return {"shira_weight": (weights,), "shira_indices": Part("I32", (2, weights))}


def _supertuning(config: Config, layer: Adapted) -> Shapes:
    """The share of weights that train, where they lie, and a LoRA beside them where it has a rank."""
    sparsity, rank = config.get("sparsity", 0.99), config.get("r")
    if not 0 <= sparsity < 1:
        raise ValueError("no share")
    weights = int(layer.out * layer.into * (1 - sparsity))
    shapes: dict[str, tuple[int, ...] | Part] = {"supertuning_values": (weights,)}
    if config.get("save_precomputed_indices", True):
        shapes["supertuning_indices"] = Part("I32", (weights,))
    if rank is not None:
        shapes |= {"supertuning_lora_A.weight": (rank, layer.into), "supertuning_lora_B.weight": (layer.out, rank)}
    return shapes


def _tinylora(config: Config, layer: Adapted) -> Shapes:
    """The weight's first directions, and how the vector of the layer's group is spread over them."""
    rank = min(config["r"], layer.out, layer.into)
    directions = {"tinylora_A": (rank, layer.into), "tinylora_B": (layer.out, rank)}
    return (
        {**directions, "tinylora_P": (config["u"], rank, rank)} if config.get("save_projection", True) else directions
    )


def _unilora(config: Config, layer: Adapted) -> Shapes:
    if not config.get("save_indices"):
        return {}
    halves = {"A": (config["r"], layer.into), "B": (layer.out, config["r"])}
    indices = {f"unilora_indices_{half}": Part("I64", shape) for half, shape in halves.items()}
    return {**indices, **{f"unilora_scales_{half}": shape for half, shape in halves.items()}}


def _vblora(config: Config, layer: Adapted) -> Shapes:
    """Logits over the bank's vectors, or the topk of them: their places, and all weights but the last."""
    length, vectors, rank = config["vector_length"], config["num_vectors"], config["r"]
    halves = {"A": (rank, layer.into // length), "B": (layer.out // length, rank)}
    if not config.get("save_only_topk_weights"):
        return {f"vblora_logits_{half}": (*shape, vectors) for half, shape in halves.items()}
    most, width = config["topk"], next((name for bits, name in _INDICES if vectors < 2**bits), "I64")
    places = {f"vblora_logits_{half}_topk_indices": Part(width, (*shape, most)) for half, shape in halves.items()}
    return {**places, **{f"vblora_logits_{half}_topk_weights": (*shape, most - 1) for half, shape in halves.items()}}


def _vera(config: Config, layer: Adapted) -> Shapes:
    return {"vera_lambda_b": (layer.out,), "vera_lambda_d": (config["r"],)}


def _pvera(config: Config, layer: Adapted) -> Shapes:
    return {"pvera_lambda_b": (layer.out,), "pvera_lambda_d": (2 * config["r"],)}


_MOST = 1_000  # what a config says is bounded
_INDICES = ((8, "U8"), (15, "I16"), (31, "I32"))
# By peft_type; BONE is what MISS was called up to PEFT 0.17.
OF_A_LAYER: Mapping[str, Callable[[Config, Adapted], Shapes]] = {
    "ADAMSS": _adamss, "BEFT": _beft, "BOFT": boft, "BONE": _bone, "C3A": _c3a, "DEFT": _deft, "DELORA": _delora,
    "FOURIERFT": _fourierft, "FROD": _frod, "GLORA": _glora, "GRALORA": _gralora, "HIRA": _hira, "HRA": _hra,
    "IA3": _ia3, "LILY": _lily, "LOHA": loha, "LOKR": lokr, "MISS": _miss, "OFT": oft, "OSF": _osf, "PEANUT": _peanut,
    "POLY": _poly, "PSOFT": _psoft, "PVERA": _pvera, "RANDLORA": _randlora, "ROAD": _road, "SHIRA": _shira,
    "SUPERTUNING": _supertuning, "TINYLORA": _tinylora, "UNILORA": _unilora, "VBLORA": _vblora, "VERA": _vera,
    "WAVEFT": _waveft,
}  # fmt: skip
# Whose size of a layer a pattern may give: the field, and that of the pattern.
NUMBERS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("DELORA", "LOHA", "LOKR"), ("r", "rank_pattern")),
    **dict.fromkeys(("FOURIERFT", "WAVEFT"), ("n_frequency", "n_frequency_pattern")),
    "C3A": ("block_size", "block_size_pattern"),
}
