"""What PEFT does with one config on one model: the outcome, in the words of the estimate."""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TORCH_TO_FILE = "adapter_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`stage` says how far PEFT came: "config", "get_peft_model" and "count" are refusals; "save" counts; "done"."""

    stage: str
    error: str = ""
    trainable: int = 0
    total: int = 0
    modules: tuple[tuple[str, int | None], ...] = ()
    file_bytes: int = 0
    tensors: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # name -> dtype, sizes


def outcome(model: Any, lora: dict[str, Any], options: dict[str, Any]) -> Outcome:
    """get_peft_model, get_nb_trainable_parameters and save_pretrained on a copy of `model`."""
    stage = "config"
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        try:
            config = _config(lora)
            stage = "get_peft_model"
            adapted = _adapted(model, config, options)
            stage = "count"
            trainable, total = adapted.get_nb_trainable_parameters()
        except Exception as error:  # PEFT refuses in many ways
            return Outcome(stage=stage, error=f"{type(error).__name__}: {error}")
        counted = {"trainable": trainable, "total": total, "modules": modules(adapted)}
        try:
            save = {"auto": "auto", "yes": True, "no": False}[options.get("save_embedding_layers", "auto")]
            adapted.save_pretrained(folder, save_embedding_layers=save)
        except Exception as error:
            return Outcome(stage="save", error=f"{type(error).__name__}: {error}", **counted)
        size, tensors = file_facts(Path(folder) / TORCH_TO_FILE)
        return Outcome(stage="done", file_bytes=size, tensors=tensors, **counted)


def _config(lora: dict[str, Any]) -> Any:
    import peft

    fields = dict(lora)
    kind = fields.pop("peft_type", "LORA")
    parts = {
        "eva_config": "EvaConfig", "corda_config": "CordaConfig", "lora_ga_config": "LoraGAConfig",
        "velora_config": "VeloraConfig", "monteclora_config": "MontecloraConfig", "use_bdlora": "BdLoraConfig",
        "arrow_config": "ArrowConfig", "kasa_config": "KasaConfig",
    }  # fmt: skip
    for name, cls in parts.items():
        if isinstance(fields.get(name), dict):
            fields[name] = _part(cls)(**fields[name])
    return (peft.AdaLoraConfig if kind == "ADALORA" else peft.LoraConfig)(**fields)


def _part(cls: str) -> Any:
    from peft.tuners.lora import config

    return getattr(config, cls)


def _adapted(model: Any, config: Any, options: dict[str, Any]) -> Any:
    import peft

    base = copy.deepcopy(model)
    if options.get("vocab_size") is not None:
        base.resize_token_embeddings(options["vocab_size"])
    autocast = options.get("adapter_dtype") != "base"
    return peft.get_peft_model(base, config, autocast_adapter_dtype=autocast)


def modules(adapted: Any) -> tuple[tuple[str, int | None], ...]:
    """Every layer of PEFT's in the model with its rank; wrappers of another kind have none."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    found = []
    for full, module in adapted.named_modules():
        name = full.removeprefix("base_model.model.")
        if isinstance(module, LoraLayer):
            found.append((name, module.r["default"]))
        elif isinstance(module, (AuxiliaryTrainingWrapper, BaseTunerLayer)):
            found.append((name, None))
    return tuple(found)


def file_facts(path: Path) -> tuple[int, dict[str, tuple[Any, ...]]]:
    """Bytes of a safetensors file, and its tensors by name: dtype and sizes."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    tensors = {name: (said["dtype"], *said["shape"]) for name, said in header.items() if name != "__metadata__"}
    return path.stat().st_size, tensors
