"""What is asked of an estimate: the options of the command line, with their defaults."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from estimator.errors import UsageError
from estimator.notes import Note


class Request(NamedTuple):
    """Names are the options' with underscores. None: not given, so PEFT's or the library's default holds."""

    model: str | None = None
    set: Mapping[str, Any] = {}  # dotted field of config.json -> value
    revision: str | None = None
    subfolder: str | None = None
    token: str | None = None
    offline: bool = False
    online: bool = False
    timeout: float = 60.0  # seconds, for all of the Hub's answers together
    lora: Mapping[str, Any] = {}  # fields of adapter_config.json
    config: str | None = None  # path of an adapter_config.json or a trainer's config
    target_rule: Any = None  # training_config.TargetRule of --config: a trainer's own way to name targets
    config_notes: Sequence[Note] | None = None  # on --config, what its reader must know; None: it was not read yet
    trainer_skips: Sequence[str] | None = None  # skip_modules of --config's trainer, for all models: none need match
    freezing: Any = None  # training_config.Freezing of --config: what is frozen or cast once the adapter is made
    r: int | None = None
    targets: str | None = None
    exclude: str | None = None
    layers: str | None = None
    rank_pattern: Mapping[str, int] | None = None
    dora: bool | None = None
    bias: str | None = None
    lora_bias: bool | None = None
    modules_to_save: Sequence[str] | str | None = None
    target_parameters: Sequence[str] | str | None = None
    trainable_tokens: Sequence[int] | Mapping[str, Sequence[int]] | str | None = None
    task: str | None = None
    num_labels: int | None = None
    vocab_size: int | None = None
    tokenizer: str | None = None
    save_embedding_layers: str | None = None  # "auto"
    adapter_dtype: str | None = None
    base_precision: str | None = None  # "stored"
    dtype: str | None = None  # "auto"
    double_quant: bool | None = None
    quant_storage: str | None = None
    compute_dtype: str | None = None
    skip_modules: Sequence[str] | str | None = None
    prepare_kbit: bool | None = None


MOST = {"num_labels": 10_000_000, "vocab_size": 2**31}  # numbers from 1
NAMING = ("model", "revision", "subfolder", "config", "tokenizer")  # a name that is empty is none


def flag(name: str) -> str:
    """A field of the request as the command line writes it."""
    return "--" + name.rstrip("_").replace("_", "-")


_SHORTEST, _LONGEST = 0.1, 3600


def check_timeout(seconds: float) -> None:
    """Raises UsageError for a time that is none: NaN is neither too short nor too long for anybody who compares."""
    if not _SHORTEST <= seconds <= _LONGEST:
        what = f"{seconds} is no time to wait for the Hub."
        way_out = f"give seconds, from {_SHORTEST} to {_LONGEST:,}"
        raise UsageError(what, where="--timeout", way_out=way_out)
