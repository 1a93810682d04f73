"""Stored weights against the number of dimensions that their module's class gives them."""

from __future__ import annotations

from estimator.architecture.module import ModuleTree
from estimator.errors import MalformedHeaderError

# torch 2.13, nn.Module subclasses; transformers 5.23.0, pytorch_utils.py (Conv1D)
_OF_A_WEIGHT = {"Linear": 2, "Conv1D": 2, "Embedding": 2, "Conv1d": 3, "Conv2d": 4, "Conv3d": 5}


def check_dimensions(tree: ModuleTree) -> None:
    """Raises MalformedHeaderError where a weight can't be its module's: torch would refuse to load it."""
    for module in tree.modules:
        wanted = _OF_A_WEIGHT.get(module.kind)
        for parameter in module.parameters if wanted else ():
            if parameter.name == "weight" and len(parameter.shape) != wanted:
                what = (
                    f"{module.name}.weight is stored with the shape {list(parameter.shape[:8])}; "
                    f"the weight of a {module.kind} has {wanted} dimensions."
                )
                way_out = "check that config.json belongs to these weights"
                raise MalformedHeaderError(what, where=f"{module.name}.weight", way_out=way_out)
