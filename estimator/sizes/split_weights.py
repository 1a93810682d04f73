"""Weights that the file holds in one tensor and the class splits, under a skip list that parts them.

transformers 5.23.0 asks of the first part alone whether the tensor is to be quantised, and does to all parts what it
does to that one (core_model_loading.py, `convert_and_load_state_dict_in_model` and `WeightConverter.convert`). A part
that is spared then fails to load beside a first one that is not; parts that are not spared beside a first one that is
are bitsandbytes' layers with plain weights in them, whose forward pass fails.
"""

from __future__ import annotations

from collections.abc import Iterable

from estimator.architecture.module import ModuleTree
from estimator.architecture.stored_names import split_weights
from estimator.errors import UsageError
from estimator.lora.closest import listed
from estimator.notes import Note
from estimator.sizes.bitsandbytes import unquantised
from estimator.sizes.skipping import OPTION


def as_split(tree: ModuleTree, stored: Iterable[str] | None) -> ModuleTree:
    """A tree whose layers bitsandbytes converts, as it is loaded from such a file; a note where weights stay plain.

    stored: the file's names; None where no headers are read: weights that the class splits are then taken to lie in one
    tensor, as transformers saves them.
    Raises UsageError where a part is spared beside a first one that is not: transformers fails to load it.
    """
    layers, plain = tree.quantised, []
    for group in split_weights(tree, stored):
        first, *others = (name.removesuffix(".weight") for name in group)
        if first not in layers:
            plain += [name for name in others if name in layers]
        elif spared := next((name for name in others if name not in layers), None):
            raise _refusal(spared, first, is_read=stored is not None)
    if not plain:
        return tree
    own = {module.name: module.parameters for module in tree.modules}
    unpacked = {name: unquantised(layers[name], own[name]) for name in plain}
    how = "taken to be " if stored is None else ""
    message = (
        f"{listed(plain)} stay unquantised: each is {how}stored in one tensor with a part that is spared. transformers "
        "makes layers of bitsandbytes of them, which cannot run: spare all parts of that tensor, or none."
    )
    note = Note("split_weights_spared", message)
    return tree._replace(quantised={**layers, **unpacked}, notes=(*tree.notes, note))


def _refusal(spared: str, first: str, *, is_read: bool) -> UsageError:
    if is_read:
        how, or_else = "the file holds both in one tensor: transformers fails", ""
    else:
        how = "no headers were read: as transformers saves them, one tensor holds both, and it fails"
        or_else = ", or have the file's headers read: --online, or its folder as --model"
    what = f"{spared} is spared and {first} is not, and {how}."
    return UsageError(what, where=OPTION, way_out=f"spare all parts of that tensor, or none{or_else}")
