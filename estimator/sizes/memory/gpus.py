"""GPUs by name: the memory that CUDA reports on them, and their peak at 16 bits.

`cuda_gib` is `torch.cuda.get_device_properties(0).total_memory`: the smallest figure of public out-of-memory reports
("GPU 0 has a total capacity of ..."), for instance pytorch/torchchat#1341 (RTX 4090), TrajectoryCrafter#20 (RTX 5090),
vllm#16343 (RTX 3090), vllm#27508 (H100), Control-GIC#8 (A100 80 GB), Qwen3-VL#2097 (L40), RB-Modulation#5 (A30),
VGGT-Long#6 (A4000), ChatGLM-Finetuning#73 (V100 of 32 GB), CogVLM#236 (A10), MTVCrafter#21 (RTX 6000 Ada, 44.43),
pytorch/ao#4002 (B200). H200 (139.80), L4 (22.03), V100 of 16 GB (15.77) and cards of 48 GB (47.40 to 47.53, A6000 and
others) have reports in many repositories. None was found for P100 and RTX 4080: there it is the figure that is usually
quoted. Drivers and ECC settings move a card by some hundred MB.
`smi_mib` is the total of nvidia-smi, 0.1 to 1.1 GiB more; T4, L4, A10, A100, L40S, H100 and H200 as Modal publishes
them (thundergolfer.com/blog/nvidia-gpu-memory-capacity).
`tflops` is dense bf16 (fp16 before Ampere) with float32 sums, from NVIDIA's data sheets, which print twice as much
where they count sparsity.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import NamedTuple

from estimator.errors import UsageError
from estimator.request.size import parse_size


class Gpu(NamedTuple):
    """A GPU's memory as two tools show it, and its peak at 16 bits without sparsity."""

    cuda_gib: float  # what CUDA reports
    smi_mib: int  # "Total" of nvidia-smi
    tflops: float | None  # None: no figure that is sure


GPUS = {
    "t4": Gpu(14.56, 15_360, 65),
    "p100": Gpu(15.89, 16_384, 19),
    "v100-16gb": Gpu(15.77, 16_384, 112),
    "v100-32gb": Gpu(31.74, 32_768, 112),
    "l4": Gpu(22.03, 23_034, 121),
    "a10": Gpu(21.98, 23_028, 125),
    "a10g": Gpu(21.98, 23_028, None),
    "a30": Gpu(23.53, 24_576, 165),
    "a40": Gpu(44.34, 46_068, 149.7),
    "a4000": Gpu(15.61, 16_376, 76.7),
    "a6000": Gpu(47.43, 49_140, 154.8),
    "a100-40gb": Gpu(39.39, 40_960, 312),
    "a100-80gb": Gpu(79.14, 81_920, 312),
    "l40": Gpu(44.39, 46_068, 181),
    "l40s": Gpu(44.39, 46_068, 362),
    "rtx6000-ada": Gpu(44.39, 46_068, None),
    "h100": Gpu(79.10, 81_559, 989),
    "h200": Gpu(139.80, 143_771, 989),
    "b200": Gpu(178.35, 183_359, 2250),
    "rtx3090": Gpu(23.68, 24_576, 71),
    "rtx4080": Gpu(15.70, 16_376, 97.5),
    "rtx4090": Gpu(23.52, 24_564, 165.2),
    "rtx5090": Gpu(31.36, 32_607, 209.5),
}
_ALIASES = {
    "a100": "a100-80gb", "v100": "v100-16gb", "rtxa6000": "a6000", "rtxa4000": "a4000", "rtx6000ada": "rtx6000-ada",
    "4090": "rtx4090", "3090": "rtx3090", "5090": "rtx5090", "4080": "rtx4080",
}  # fmt: skip
_SIZE = re.compile(r"(?<![a-z0-9])(\d+)\s*gi?b?(?![a-z0-9])")
# What nvidia-smi and shops write beside; not "pcie", which is another H100
_BESIDE = re.compile(r"nvidia|geforce|tesla|gpu|generation|sxm\d?|hbm\d\w?")
_NEAR = 0.07  # of the size that is said: L4 has 22.5 of 24
_LEAST_MEMORY = 64 * 2**20


def find_gpu(name: str) -> Gpu:
    """The GPU of this name, as the table, nvidia-smi or a shop writes it. Raises UsageError for others."""
    said = name.lower().replace("_", " ")
    words = [w for w in re.findall("[a-z0-9]+", _SIZE.sub(" ", said)) if not _BESIDE.fullmatch(w)]
    model = "".join(words)
    model = model if model == "h100pcie" else model.removesuffix("pcie")
    sizes = [int(size) for size in _SIZE.findall(said)]
    keys = [f"{model}-{size}gb" for size in sizes] or [model]
    for key in (_ALIASES.get(key, key) for key in (*keys, model)):
        if key in GPUS and all(abs(GPUS[key].smi_mib / (size * 1024) - 1) < _NEAR for size in sizes):
            return GPUS[key]
    close = get_close_matches(keys[0], GPUS, n=1)
    way_out = f"did you mean {close[0]}?" if close else f"one of {', '.join(GPUS)}; or --gpu-memory 24GB"
    raise UsageError(f"there is no GPU {name[:60]!r} in the table.", where="--gpu", way_out=way_out)


def gpu_bytes(name: str) -> int:
    """Bytes that CUDA reports on a GPU of this name. Raises UsageError for a name that is not in the table."""
    return int(find_gpu(name).cuda_gib * 2**30)


def memory_bytes(text: str, option: str) -> int:
    """A GPU's memory in bytes. Raises UsageError for what is no size, and for fewer bytes than any GPU has."""
    size = parse_size(text, option)
    if size < _LEAST_MEMORY:
        way_out = f"write {text.strip()}GB or {text.strip()}GiB" if text.strip().isdigit() else "write 24GB or 24GiB"
        raise UsageError(f"{text[:60]!r} is {size:,} bytes, which no GPU has.", where=option, way_out=way_out)
    return size
