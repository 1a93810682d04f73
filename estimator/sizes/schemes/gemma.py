"""Gemma's own checkpoints (transformers 5.23.0, quantizer_gemma.py and integrations/gemma_quant.py).

Linear      weight U8 [out, in/4] in 2 bits, U8 [out, in/2] in 4, I8 [out, in] else   weight_scale F32 [out, 1]
            input_activation_scale, output_activation_scale F32 []: zeros where the file has none
Embedding   embedding_quantized as a Linear's weight, embedding_scale F32 [rows, 1]; no nn.Embedding, and without
            the buffer of scale that Gemma's has
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from estimator.architecture.module import Module, ModuleTree, Parameter, QuantisedLayer
from estimator.checkpoint.checkpoint import Checkpoint
from estimator.checkpoint.quantization import Quantization
from estimator.errors import MalformedConfigError
from estimator.request.patterns import Pattern, matching
from estimator.sizes.schemes.others import no_checkpoint
from estimator.sizes.skipping import CONFIG, skips

_BITS = 4  # where nothing is said
_A_BYTE = {2: 4, 4: 2}  # bits -> values
_EMBEDDING = "QuantizedEmbedding"


def gemma_layers(tree: ModuleTree, quantization: Quantization, dtype: str) -> dict[str, QuantisedLayer]:
    """Every Linear that is not skipped, and every Embedding where `quantize_embeddings` says so.

    Raises UnsupportedError for an embedding that is tied, MalformedConfigError for a pattern that is none.
    """
    fields = quantization.fields
    skipped = skips(tree, fields.get("modules_to_not_convert"))
    kinds = ("Linear", "Embedding") if fields.get("quantize_embeddings") else ("Linear",)
    converted = [m for m in tree.modules if m.kind in kinds and m.parameters and not skipped(m.name)]
    ties = {**tree.tied, **(tree.declared_ties if tree.tie_word_embeddings else {})}
    for module in converted:
        if module.kind == "Embedding" and f"{module.name}.weight" in {*ties, *ties.values()}:
            raise no_checkpoint(f"packed embedding to which a weight is tied, {module.name}", "modules_to_not_convert")
    usual, own = fields.get("num_bits", _BITS), _own_bits(fields, [module.name for module in converted])
    return {module.name: _layer(module, own.get(module.name, usual)) for module in converted}


def with_layers(tree: ModuleTree, layers: Mapping[str, QuantisedLayer], checkpoint: Checkpoint | None) -> ModuleTree:
    """The tree without buffers of embeddings in whose place others stand, and without ties of heads that are stored."""
    replaced = {name for name, layer in layers.items() if layer.cls == _EMBEDDING}
    stored = {f"{name}.weight" for name in layers if checkpoint is None or f"{name}.weight" in checkpoint.tensors}
    return tree._replace(
        modules=tuple(m._replace(buffers=()) if m.name in replaced else m for m in tree.modules),
        tied={name: root for name, root in tree.tied.items() if name not in stored},
    )


def _own_bits(fields: Mapping[str, Any], names: Sequence[str]) -> dict[str, int]:
    """`module_quant_configs`: of all patterns that are found in a name the one that is found first counts."""
    said = fields.get("module_quant_configs") or {}
    patterns = list(said)
    found_here = "|".join(f"(?:{one})" for one in patterns)
    earlier = ["|".join(f"(?:{one})" for one in patterns[:at]) or "(?!)" for at in range(len(patterns))]
    first = [
        Pattern(rf"(?s:(?:(?!{found_here}).)*)(?!{before})(?:{one})", one)
        for one, before in zip(patterns, earlier, strict=True)
    ]
    taken = matching(first, names, where=CONFIG, refusal=MalformedConfigError)
    return {
        name: said[pattern]["num_bits"]
        for pattern, those in zip(patterns, taken, strict=True)
        for name in those
        if "num_bits" in said[pattern]
    }


def _layer(module: Module, bits: int) -> QuantisedLayer:
    weight, *rest = module.parameters
    rows, columns = weight.shape
    dtype, packed = ("U8" if bits in _A_BYTE else "I8"), ceil(columns / _A_BYTE.get(bits, 1))
    if module.kind == "Embedding":
        table = Parameter("embedding_quantized", (rows, packed), dtype, True)
        scale = Parameter("embedding_scale", (rows, 1), "F32", True)
        refusal = f"PEFT's LoRA supports no {_EMBEDDING}"
        return QuantisedLayer("gemma", _EMBEDDING, (table, scale), saved_beside=(), is_linear=False, refusal=refusal)
    scales = (Parameter(f"{side}_activation_scale", (), "F32", True) for side in ("input", "output"))
    parameters = (
        Parameter("weight", (rows, packed), dtype, True),
        Parameter("weight_scale", (rows, 1), "F32", True),
        *scales,
        *rest,
    )
    return QuantisedLayer("gemma", "QuantizedLinear", parameters, saved_beside=())
