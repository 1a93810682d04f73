"""Packed layers of a file against the layout that config.json's fields give: what differs is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from estimator.architecture.module import ModuleTree, QuantisedLayer
from estimator.architecture.stored_names import run_time_names
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.checkpoint.packed_layouts import LAYOUTS
from estimator.lora.closest import listed
from estimator.notes import Note

KEEP_THEIR_SHAPES = ("gptq", "auto-round", "awq", "aqlm", "eetq")  # whose tensors keep their shapes at run time


def held_otherwise(tree: ModuleTree, layers: Mapping[str, QuantisedLayer], checkpoint: Checkpoint) -> Iterator[Note]:
    """A note on tensors of another shape than their layer's, and one on layers of which the file has none."""
    held = _by_module(tree, layers, checkpoint) if layers else {}
    odd = next((said for name, layer in layers.items() for said in _odd(name, layer, held.get(name, {}))), None)
    if odd is not None:
        yield Note("held_otherwise", f"{odd}: the footprint is that of the layout that config.json's fields give.")
    own = {module.name for module in tree.modules if module.parameters}  # and no activation, which may get scales
    if missing := [name for name in layers if name not in held and name in own]:
        message = (
            f"{listed(missing)} are to be quantised by config.json, and the file holds nothing packed of them: "
            "from_pretrained makes these layers anew."
        )
        yield Note("packed_missing", message)


def _by_module(
    tree: ModuleTree, layers: Mapping[str, QuantisedLayer], checkpoint: Checkpoint
) -> dict[str, dict[str, Tensor]]:
    """What is packed of the layers, by the module's run-time name and the tensor's own."""
    stored, layout = checkpoint.tensors, LAYOUTS[next(iter(layers.values())).scheme]
    stems = {name: name for name in layers if name + layout.marker in stored}
    if len(stems) < len(layers):  # the class may rename what is stored; experts are fused, and many
        ends = (name for name in stored if name.endswith(layout.marker) and ".experts." not in name)
        weights = [name.removesuffix(layout.marker) + ".weight" for name in ends]
        names = run_time_names(tree.config, tree, weights)
        stems |= {names[weight].removesuffix(".weight"): weight.removesuffix(".weight") for weight in weights}
    return {
        name: {part[1:]: stored[stem + part] for part in layout.parts if stem + part in stored}
        for name, stem in stems.items()
    }


def _odd(name: str, layer: QuantisedLayer, held: Mapping[str, Tensor]) -> Iterator[str]:
    for own in (*layer.parameters, *layer.buffers):
        if own.name in held and held[own.name].shape != own.shape:
            yield f"{name}.{own.name} is {list(held[own.name].shape)} in the file, {list(own.shape)} by config.json"
