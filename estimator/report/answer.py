"""Everything that an estimate found out, before it is put into a form."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from estimator.architecture.module import ModuleTree
from estimator.lora.adapt import Adaptation
from estimator.notes import Note
from estimator.sizes.base import BaseSizes
from estimator.sizes.cross_check import CrossCheck
from estimator.source.found import Found


class Answer(NamedTuple):
    found: Found
    config: Mapping[str, Any]  # config.json with --set applied; the tree's is the class's own part of it
    tree: ModuleTree
    adaptation: Adaptation
    base: BaseSizes
    cross_check: CrossCheck
    file_bytes: int | None  # of adapter_model.safetensors; None where PEFT can't save, or weights decide
    comparison_bytes: int | None  # of the base as this request loads it
    notes: tuple[Note, ...] = ()
