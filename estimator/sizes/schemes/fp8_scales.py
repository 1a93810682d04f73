"""Whether a file's FP8 scales become those of the layers that transformers makes for them.

Scales go through the class's conversions as their weights do: merged expert by expert, split with a fused tensor. What
comes of that has to have the shape of the layer's own scales, or loading ends (transformers 5.23.0, quantizers/base.py,
`update_weight_conversions`, and core_model_loading.py, `set_param_for_module`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from estimator.architecture.module import ModuleTree, QuantisedLayer
from estimator.architecture.stored_names import loaded_shapes
from estimator.checkpoint.checkpoint import Checkpoint, stacks_of
from estimator.errors import MalformedHeaderError, UnsupportedError
from estimator.source.stack import Stack

_SCALE = "_scale_inv"
# Of other makers (`FineGrainedFP8HfQuantizer.update_weight_conversions`).
_CALLED = {"weight_scale_inv": "weight", "scale": "weight", "qscale_weight": "weight"}


def check_scales(tree: ModuleTree, layers: Mapping[str, QuantisedLayer], checkpoint: Checkpoint) -> None:
    """Raises UnsupportedError where the scales of a converted layer come out in another shape than it has them."""
    own = {
        f"{name}.{parameter.name}": parameter.shape
        for name, layer in layers.items()
        for parameter in layer.parameters
        if parameter.name.endswith(_SCALE)
    }
    try:
        found = loaded_shapes(tree, _scales(checkpoint))
    except MalformedHeaderError as error:
        raise _refusal(error.what.replace("is stored", "has scales")) from error
    for name, shape in found.items():
        scale = name + _SCALE
        if scale in own and shape is not None and shape != own[scale]:
            raise _refusal(f"the file's scales of {name} become {list(shape)}; its FP8 layer has {list(own[scale])}.")


def _refusal(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{what.removesuffix('.')}: transformers fails to load it.",
        where="quantization_config in config.json",
        way_out="name the model that was quantised instead",
    )


def _scales(checkpoint: Checkpoint) -> Iterator[Stack]:
    """The scales under the names of their weights: what is done to these by name is done to them."""
    for stack in stacks_of(checkpoint.tensors):
        module, dot, last = stack.after.rpartition(".")
        weight = _CALLED.get(last, last.removesuffix(_SCALE))
        if weight != last:
            yield stack._replace(after=f"{module}{dot}{weight}")
