"""A training run as far as memory depends on it; names and defaults are those of TrainingArguments and accelerate."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    batch_size: int = 8  # examples on each device: per_device_train_batch_size
    gradient_accumulation: int = 1
    sequence_length: int = 1024  # tokens of the longest example: SFTConfig.max_length
    packing: bool = False  # every example is filled up to sequence_length
    mixed_precision: str = "no"  # "no" | "bf16" | "fp16": autocast around the forward pass
    gradient_checkpointing: bool = False
    attention: str = "sdpa"  # "eager" | "sdpa" | "flash_attention_2"
    loss: str = "standard"  # "standard" | "fused" (logits never whole) | "chunked"
    optimizer: str = "adamw_torch"
    gpus: int = 1
    strategy: str = "ddp"  # "ddp" | "zero1" | "zero2" | "zero3" | "fsdp"

    @property
    def tokens(self) -> int:
        return self.batch_size * self.sequence_length


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What PEFT adds to the base, as far as memory depends on it."""

    ranks: dict[str, int]  # module name -> rank
    parameters: int  # trainable
    parameter_bytes: int  # of the trainable parameters, as they train
    width: int = 4  # bytes of an element of the LoRA weights
    dropout: float = 0.0
    dora: bool = False
