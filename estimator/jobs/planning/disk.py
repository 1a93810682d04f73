"""Bytes on disk and over the network: the base's download, the adapter's file, Trainer's checkpoints.

transformers 5.23.0, Trainer._save_checkpoint: beside the adapter, optimizer.pt holds the optimizer's state, and
scheduler.pt, rng_state.pth, trainer_state.json and training_args.bin some 30 kB that are not counted here. DeepSpeed
writes the module's parameters and, in ZeRO, a float32 copy of what is trained with its two moments; releases that can
leave the frozen base out are asked to for a PEFT model.
"""

from __future__ import annotations

from collections.abc import Iterable

from estimator.dtypes import config_dtype
from estimator.report.answer import Answer
from estimator.sizes.memory.optimizers import Trained
from estimator.sizes.memory.optimizers import state_bytes as optimizer_bytes
from estimator.sizes.memory.training import Training


def disk(
    answer: Answer, training: Training, trained: Iterable[Trained], save_total_limit: int | None
) -> dict[str, int | None]:
    """Bytes; None where they are not known. `kept_bytes`: as many checkpoints as save_total_limit keeps."""
    file_bytes = answer.file_bytes
    checkpoint = None if file_bytes is None else file_bytes + optimizer_bytes(training.optimizer, trained)
    if checkpoint is not None and training.strategy.startswith("zero"):
        weights = answer.base.loaded.weight_bytes
        checkpoint = None if weights is None else checkpoint + weights
    sizes: dict[str, int | None] = {
        "adapter_bytes": file_bytes,
        "checkpoint_bytes": checkpoint,
        "download_bytes": _download(answer),
    }
    if save_total_limit is not None:
        sizes["kept_bytes"] = None if checkpoint is None else checkpoint * save_total_limit
    return sizes


_PRECISIONS = {"F32": "fp32", "BF16": "bf16", "F16": "fp16"}


def _download(answer: Answer) -> int | None:
    """The weights' files; config and tokenizer are a few MB more. Without headers: the parameters as config.json has
    their dtype, to which headers add some ten kB a shard."""
    stored = [file.actual_bytes for file in answer.found.files]
    if stored and None not in stored:
        return sum(size for size in stored if size)
    if answer.base.checkpoint_bytes is not None or answer.tree.config.get("quantization_config"):
        return answer.base.checkpoint_bytes
    return answer.base.bytes.get(_PRECISIONS.get(config_dtype(answer.tree.config) or "", ""))
