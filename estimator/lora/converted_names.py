"""What PEFT calls the tensors of an adapter's file once it has converted their names as transformers does the base's.

peft 0.21.2, convert_peft_adapter_state_dict_for_transformers (peft/utils/transformers_weight_conversion.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from estimator.architecture.module import ModuleTree
from estimator.architecture.stored_names import renamed_alone
from estimator.lora.facts import is_converted

PREFIX = "base_model.model."


def converted_names(tree: ModuleTree, stored: Iterable[str]) -> dict[str, str]:
    """Stored names and what they become, those alone that become another.

    LoRA's own tensors alone are converted. A name of which the renamings leave an end is put back as it was, but for
    the prefix, which each of these gets that has not its first half.
    """
    if not is_converted(str(tree.config.get("model_type"))):
        return {}
    plain = {name: _without_prefix(name) for name in stored if ".lora_" in name}
    renamed = renamed_alone(tree, set(plain.values()))
    found = {name: _with_prefix(_or_as_it_was(name, renamed[end])) for name, end in plain.items()}
    return {name: becomes for name, becomes in found.items() if becomes != name}


def _without_prefix(name: str) -> str:
    """The prefix is taken out wherever it stands, first with a further `model.` behind it."""
    return name.replace(f"{PREFIX}model.", "model.", 1).replace(PREFIX, "", 1)


def _or_as_it_was(name: str, renamed: str) -> str:
    return name if name.endswith(renamed) else renamed


def _with_prefix(name: str) -> str:
    return name if name.startswith("base_model.") else PREFIX + name
