"""What `estimator.estimate` takes beside the model, for type checkers and editors; nothing imports it at run time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    import peft
    import torch

Names: TypeAlias = str | Collection[str]  # "q_proj,v_proj" or one by one
Dtype: TypeAlias = "str | torch.dtype"  # by torch's name or safetensors'


class Options(TypedDict, total=False):
    """The fields of Request by their names; None, as what is left out: PEFT's or the library's default holds."""

    set: dict[str, Any] | None  # dotted field of config.json -> value
    revision: str | None
    subfolder: str | None
    token: str | None
    offline: bool | None
    online: bool | None
    timeout: float | None  # seconds
    lora: dict[str, Any] | peft.LoraConfig | None  # fields of adapter_config.json
    config: str | PathLike[str] | None  # an adapter_config.json or a trainer's config
    r: int | None
    targets: Names | None
    exclude: Names | None
    layers: int | str | Collection[int] | None
    rank_pattern: dict[str, int] | None
    dora: bool | None
    bias: str | None
    lora_bias: bool | None
    modules_to_save: Names | None
    target_parameters: Names | None
    trainable_tokens: str | Sequence[int] | dict[str, Sequence[int]] | None
    task: str | None
    num_labels: int | None
    vocab_size: int | None  # rows of the embedding after resizing
    tokenizer: str | PathLike[str] | None
    save_embedding_layers: bool | Literal["auto", "yes", "no"] | None
    adapter_dtype: Dtype | None
    base_precision: Dtype | None  # "stored", "nf4", "fp4", "int8", or a dtype
    dtype: Dtype | None
    double_quant: bool | None
    quant_storage: Dtype | None
    compute_dtype: Dtype | None
    skip_modules: Names | None
    prepare_kbit: bool | None
