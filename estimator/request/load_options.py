"""How the base is loaded: the arguments of `from_pretrained` and `BitsAndBytesConfig` that decide about bytes."""

from typing import NamedTuple

DTYPES = ("bf16", "fp16", "fp32")
STORAGES = ("uint8", "int8", "bf16", "fp16", "fp32")
PRECISIONS = ("stored", "fp32", "bf16", "fp16", "int8", "nf4", "fp4")


class LoadOptions(NamedTuple):
    """How from_pretrained is called."""

    base_precision: str = "stored"  # one of PRECISIONS; "stored" is a plain from_pretrained()
    dtype: str = "auto"  # "auto" or safetensors' name, "BF16": what is not quantised takes it
    double_quant: bool = False  # bnb_4bit_use_double_quant
    quant_storage: str = "U8"  # bnb_4bit_quant_storage, safetensors' name
    compute_dtype: str | None = None  # bnb_4bit_compute_dtype: what PEFT casts adapters to; no byte of the base
    skip_modules: tuple[str, ...] | None = None  # llm_int8_skip_modules; None is transformers' own list
    prepare_kbit: bool = False  # peft.prepare_model_for_kbit_training afterwards
