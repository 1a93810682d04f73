"""lora-size: exact sizes of LoRA adapters from config.json and safetensors headers alone.

>>> import estimator
>>> answer = estimator.estimate("llama-3.1-8b", r=32, targets="qkvo")
>>> answer["adapter"]["parameters"], answer["adapter"]["file"]["bytes"]
(27262976, 109086416)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimator.errors import LoraSizeError

if TYPE_CHECKING:
    from os import PathLike
    from typing import Unpack

    from estimator.report.document_types import Document
    from estimator.request.python_options import Options

__version__ = "0.1.0"
__all__ = ["LoraSizeError", "estimate"]


def estimate(model: str | PathLike[str] | None = None, **options: Unpack[Options]) -> Document:
    """The object of `lora-size --json`, for option names with underscores (`r`, `targets`, `base_precision`, ...).

    `lora` takes the fields of an adapter_config.json. Parameters are counted, sizes are in bytes.
    Raises LoraSizeError: `code` is one of the contract's error codes, `what`, `where` and `way_out` say the rest.
    """
    from estimator.jobs.estimate import estimate as job
    from estimator.report.document import to_document
    from estimator.request.options import to_request

    return to_document(job(to_request({**options, "model": model})))
