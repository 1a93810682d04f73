"""What a trainer's config file says, with that trainer's own defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from estimator.notes import Note


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRule:
    """A way of naming targets that needs the model's modules; `lora.trainers.targets` has a function for each name."""

    name: str  # "axolotl_linear", "llamafactory", "swift_all_linear", "torchtune", "litgpt", "nemo", "causal", ...
    settings: Mapping[str, Any] = field(default_factory=dict)


class Freezing(NamedTuple):
    """What a trainer does to the parameters once the adapter is made; `lora.freezing` does it."""

    unfrozen: tuple[str, ...] | None = None  # patterns: what none of them matches is frozen; None: not asked for
    parts: tuple[str, ...] = ()  # a name with one of these between its dots is frozen
    within: tuple[str, ...] = ()  # so is what lies in a module with one of these anywhere in its name, in small letters
    dtype: str | None = None  # safetensors' name: what trains beside LoRA's weights is cast to it


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """A trainer's config file: the adapter, its base and the run, the trainer's defaults filled in."""

    trainer: str
    lora: Mapping[str, Any]  # fields of adapter_config.json that take effect
    own: Mapping[str, Any] = field(default_factory=dict)  # switches that no LoraConfig has
    target_rule: TargetRule | None = None
    base: str | None = None
    revision: str | None = None  # of the base on the Hub
    base_precision: str | None = None  # torch's name; the part that is not quantised; None: as stored, or unknown
    quantization: Mapping[str, Any] | None = (
        None  # method, bits, quant_type, double_quant, compute_dtype, quant_storage
    )
    prepare_kbit: bool | None = False
    undoes_upcast: bool = False  # of prepare_kbit's: norms and embeddings get their dtype back
    adapter_dtype: str | None = "float32"  # while training
    batch_size: int | None = None  # per device
    gradient_accumulation: int | None = None  # None: depends on the number of devices
    sequence_length: int | None = None  # None: the model's or the data's limit
    packing: bool | None = False
    compares: int = 0  # sequences of an example held against others: 2 chosen and rejected, 1 of KTO; 0: none
    beside: str | None = None  # logits held beside these sequences' own: "reference" | "chosen"
    gradient_checkpointing: bool | None = None
    offloads_inputs: bool = False  # those of checkpointed layers lie on the host, or on a disk
    optimizer: str | None = None
    mixed_precision: str | None = None  # "no" | "bf16" | "fp16": autocast; None: not said
    attention: str | None = None  # "eager" | "sdpa" | "flash_attention_2"; None: the library's choice
    loss: str | None = None  # "in_place" | "fused" | "in_rows" | "chunked"; None: the library's own
    gpus: int | None = None  # processes of all machines, where the file says it
    strategy: str | None = None  # "zero1" | "zero2" | "zero3" | "fsdp"
    offloads: frozenset[str] = frozenset()  # "weights" | "optimizer", that lie on the CPU
    num_labels: int | None = None
    saved_by_peft: bool = True  # False: the trainer writes the adapter itself, and never the embeddings along
    freezing: Freezing | None = None
    defaulted: tuple[str, ...] = ()  # keys that the file leaves out
    source: str = ""  # the release whose defaults they got
    notes: tuple[Note, ...] = ()
