"""Layers that a file of bitsandbytes and its config.json do not agree on, so that no model comes of it that runs.

transformers 5.23.0: what has a state is unpacked into whatever module stands there, a plain one too
(quantizers/quantizer_bnb_4bit.py, `get_weight_conversions`); what is missing is made anew, and torch draws no bytes;
what the class joins or splits on loading is bytes without a state (MiniMax M3's gate and up of shared experts).
"""

from __future__ import annotations

from collections.abc import Mapping

from estimator.architecture.module import ModuleTree, QuantisedLayer
from estimator.architecture.stored_names import converted_weights, run_time_names
from estimator.checkpoint.checkpoint import Checkpoint
from estimator.checkpoint.packed_layouts import LAYOUTS
from estimator.errors import UnsupportedError
from estimator.sizes.skipping import CONFIG


def check_against_file(layers: Mapping[str, QuantisedLayer], tree: ModuleTree, checkpoint: Checkpoint) -> None:
    """Raises UnsupportedError for a layer that is packed and spared, packed in parts, or to be packed and not there.

    layers: what config.json converts, of one scheme, at least one.
    """
    marker = LAYOUTS[next(iter(layers.values())).scheme].marker
    stems = {name.removesuffix(marker) for name in checkpoint.tensors if name.endswith(marker)}
    if stems == layers.keys():
        return
    weights = [name for name in checkpoint.tensors if name.endswith("weight")]
    names = run_time_names(tree.config, tree, weights)
    packed = {names[f"{stem}.weight"] for stem in stems if f"{stem}.weight" in names}
    for module in tree.modules:
        weight = f"{module.name}.weight"
        if weight in packed and module.name not in layers and weight not in tree.tied:
            what = f"{module.name} is packed in the file, and config.json spares it: a plain layer is built"
            raise _refusal(what, "take it off llm_int8_skip_modules in config.json")
    reshaped = next(iter(converted_weights(tree, [f"{stem}.weight" for stem in stems]).keys() & packed), None)
    if reshaped is not None:
        what = f"{reshaped.removesuffix('.weight')} is made of what the file has packed otherwise, and loses its state"
        raise _refusal(what, "quantise it as it is loaded")
    held = {*names.values(), *converted_weights(tree, weights), *tree.tied}
    missing = next((name for name in layers if f"{name}.weight" not in held), None)
    if missing is not None:
        what = f"the file has no weight of {missing}, which config.json has packed: none can be made anew"
        raise _refusal(what, "let llm_int8_skip_modules in config.json name it, to have it made anew unpacked")


def _refusal(what: str, way_out: str) -> UnsupportedError:
    what = f"{what}, and transformers cannot load it, or not run it."
    return UnsupportedError(what, where=CONFIG, way_out=f"{way_out}, or name the model that was quantised")
