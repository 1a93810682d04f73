"""The contract's JSON object as types, for type checkers and editors; nothing imports it at run time.

Sizes are integers in bytes, counts are integers; None stands for what can't be known without the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict


class Document(TypedDict):
    """What `lora-size --json` prints and `estimator.estimate` returns."""

    schema_version: int
    model: Model
    lora: Mapping[str, Any]  # the effective LoraConfig, with the field names of adapter_config.json
    adapter: Adapter
    base: Base
    totals: Totals
    cross_check: CrossCheck
    comparison: Comparison
    rules: Rules
    notes: list[Note]


class Model(TypedDict):
    id: str  # the resolved Hub id or the local path
    revision: str | None  # the commit, where known
    source: str  # "hub" | "cache" | "local" | "snapshot"
    architecture: str | None  # the class in config.json's `architectures`
    basis: str  # "exact" | "inferred"
    shapes: str  # "headers" | "config"


class Adapter(TypedDict):
    parameters: int  # get_nb_trainable_parameters()[0]
    bytes: dict[str, int]  # precision -> `parameters` at that width
    modules: list[Module]
    file: File
    parts: list[Part]


class Module(TypedDict):
    name: str  # PEFT's, at run time
    kind: str
    in_features: int | None
    out_features: int | None
    rank: int | None  # None: trained without LoRA, as modules_to_save and token rows are
    parameters: int


class File(TypedDict):
    """adapter_model.safetensors as save_pretrained writes it; None where PEFT can't save, or weights decide."""

    bytes: int | None
    tensors: int | None
    dtypes: dict[str, Tensors]


class Tensors(TypedDict):
    tensors: int
    elements: int
    bytes: int


class Part(TypedDict):
    part: str  # "lora" | "dora" | "bias" | "saved_modules" | "trainable_tokens" | "embeddings"
    parameters: int
    file_bytes: int
    dtype: str | None  # None for what trains and is not saved


class Base(TypedDict):
    parameters: int  # logical, tied weights once
    bytes: dict[str, int | None]  # "checkpoint" or precision -> bytes; the checkpoint's is None without headers
    footprint: dict[str, int]  # precision -> get_memory_footprint()
    loaded: Loaded


class Loaded(TypedDict):
    """The base as this request loads it."""

    precision: str
    dtype: str | None
    footprint_bytes: int | None
    state_bytes: int | None  # of quantisation, outside the footprint
    prepared_footprint_bytes: int | None  # after prepare_model_for_kbit_training; None where it is not called


class Totals(TypedDict):
    all_parameters: int  # get_nb_trainable_parameters()[1]
    trainable_percent: float


class CrossCheck(TypedDict):
    status: str  # "match" | "mismatch" | "unavailable"
    files: list[CheckedFile]
    complaints: list[str]  # index and config.json against the headers


class CheckedFile(TypedDict):
    path: str
    expected_bytes: int | None  # from the header
    actual_bytes: int | None  # the real file's
    dtypes: dict[str, int]


class Comparison(TypedDict):
    parameters_percent: float  # 100 x adapter.parameters / base.parameters
    bytes_percent: float | None  # 100 x adapter.file.bytes / the base's as this request loads it
    bytes_percent_at: dict[str, float | None]  # precision -> the same there
    full_checkpoint_bytes: int | None  # the tensors that a full fine-tune in the load dtype would save
    merged_bytes: int | None  # the tensors of the base with the adapter merged into it


class Rules(TypedDict):
    peft: str
    transformers: str


class Note(TypedDict):
    code: str  # stable, snake_case: what programs look for
    message: str
