"""GPUs by name: the memory that CUDA reports on them, and their peak at 16 bits.

`cuda_gib` is `torch.cuda.get_device_properties(0).total_memory` under Linux: the smallest figure of public reports, for
instance of out-of-memory errors ("GPU 0 has a total capacity of ..."): pytorch/torchchat#1341 (RTX 4090: 23.52),
TrajectoryCrafter#20 (RTX 5090: 31.36), vllm#27508 (H100), Control-GIC#8 (A100 80 GB), Qwen3-VL#2097 (L40),
RB-Modulation#5 (A30), VGGT-Long#6 (A4000), ChatGLM-Finetuning#73 (V100 of 32 GB), CogVLM#236 (A10), MTVCrafter#21 (RTX
6000 Ada: 44.43), pytorch/ao#4002 (B200), ROCm#4203 (MI300X: 191.98). H200, L4, V100 of 16 GB and most others have them
in many repositories: such errors, and the first lines of llama.cpp ("RTX 3060, ..., VRAM: 11906 MiB"), of Ultralytics
("RTX 3070, 7753MiB") and of Unsloth ("RTX PRO 6000 ... Max memory: 94.971 GB"). Newer drivers report 0.1 to 0.2 GiB
less than older ones, Windows all that nvidia-smi shows. The reports of RTX 4070 Ti, RTX 5000 Ada and the Quadros round
to 0.1 GiB. None was found for P100, where it is the figure that is usually quoted, nor for H800, which has H100's total
of nvidia-smi. ECC takes a sixteenth of GDDR memory: P40, A10, A40, L4, L40, RTX 6000 Ada and the Quadros are with it.
Left out are cards whose nvidia-smi alone is known: A2 and A16 (15,356), RTX 4500 Ada (24,570), RTX PRO 4500 (32,623).
GB10 (DGX Spark) shares its memory with the CPU: what else runs there takes of it. MI250X is two devices to torch; this
is one of them.
`smi_mib` is the total of nvidia-smi, 0.1 to 1.1 GiB more; T4, L4, A10, A100, L40S, H100 and H200 as Modal publishes
them (thundergolfer.com/blog/nvidia-gpu-memory-capacity). For AMD it is that of rocm-smi, and for GB10, on which
nvidia-smi shows none, the largest figure of CUDA.
`tflops` is dense bf16 (fp16 before Ampere) with float32 sums, from the makers' data sheets, which print twice as much
where they count sparsity. For GeForce NVIDIA prints a sparse peak of a narrower type: 4 (RTX 30: fp16, sums in fp16),
8 (RTX 40: fp8) or 16 (RTX 50: fp4) times as much.
"""

import re
from difflib import get_close_matches
from textwrap import fill
from typing import NamedTuple

from estimator.errors import UsageError
from estimator.request.size import parse_size


class Gpu(NamedTuple):
    """A GPU's memory as two tools show it, and its peak at 16 bits without sparsity."""

    cuda_gib: float  # what CUDA reports
    smi_mib: int  # "Total" of nvidia-smi or rocm-smi
    tflops: float | None  # None: no figure that is sure


GPUS = {
    "t4": Gpu(14.56, 15_360, 65),
    "p40": Gpu(22.38, 23_040, None),
    "p100": Gpu(15.89, 16_384, 19),
    "v100-16gb": Gpu(15.77, 16_384, 112),
    "v100-32gb": Gpu(31.74, 32_768, 112),
    "l4": Gpu(22.03, 23_034, 121),
    "l40": Gpu(44.39, 46_068, 181),
    "l40s": Gpu(44.39, 46_068, 362),
    "a10": Gpu(21.98, 23_028, 125),
    "a10g": Gpu(21.98, 23_028, None),
    "a30": Gpu(23.53, 24_576, 165),
    "a40": Gpu(44.34, 46_068, 149.7),
    "a100-40gb": Gpu(39.38, 40_960, 312),
    "a100-80gb": Gpu(79.14, 81_920, 312),
    "a800": Gpu(79.14, 81_920, 312),
    "h20": Gpu(95.00, 97_871, 148),
    "h100": Gpu(79.10, 81_559, 989),
    "h100-pcie": Gpu(79.11, 81_559, 756),
    "h100-nvl": Gpu(93.09, 95_830, 835),
    "h200": Gpu(139.80, 143_771, 989),
    "h800": Gpu(79.10, 81_559, 989),
    "gh200": Gpu(94.50, 97_871, 989),
    "b200": Gpu(178.35, 183_359, 2250),
    "b300": Gpu(267.69, 275_040, 2250),
    "gb200": Gpu(184.31, 189_471, 2500),
    "gb10": Gpu(119.61, 124_610, None),
    "a2000-12gb": Gpu(11.73, 12_282, 31.9),
    "a4000": Gpu(15.61, 16_376, 76.7),
    "a4500": Gpu(19.60, 20_470, 94.6),
    "a5000": Gpu(23.55, 24_564, 111.1),
    "a5500": Gpu(23.53, 24_564, 136.4),
    "a6000": Gpu(47.43, 49_140, 154.8),
    "rtx4000-ada": Gpu(19.54, 20_475, None),
    "rtx5000-ada": Gpu(31.50, 32_760, None),
    "rtx6000-ada": Gpu(44.39, 46_068, None),
    "rtxpro4000": Gpu(23.42, 24_467, None),
    "rtxpro5000": Gpu(47.26, 48_935, None),
    "rtxpro6000": Gpu(94.96, 97_887, None),
    "quadro-rtx6000": Gpu(22.20, 23_040, 130.5),
    "quadro-rtx8000": Gpu(44.50, 46_080, 130.5),
    "titan-rtx": Gpu(23.64, 24_576, 130.5),
    "rtx2080ti": Gpu(10.57, 11_264, 53.8),
    "rtx3060": Gpu(11.63, 12_288, 25.5),
    "rtx3070": Gpu(7.57, 8_192, 40.6),
    "rtx3080-10gb": Gpu(9.62, 10_240, 59.5),
    "rtx3080-12gb": Gpu(11.63, 12_288, 61.3),
    "rtx3090": Gpu(23.56, 24_576, 71),
    "rtx3090ti": Gpu(23.55, 24_564, 80),
    "rtx4060ti-8gb": Gpu(7.62, 8_188, 44.1),
    "rtx4060ti-16gb": Gpu(15.57, 16_380, 44.1),
    "rtx4070": Gpu(11.59, 12_282, 58.3),
    "rtx4070super": Gpu(11.58, 12_282, 71),
    "rtx4070ti": Gpu(11.60, 12_282, 80.2),
    "rtx4070tisuper": Gpu(15.56, 16_376, 88.2),
    "rtx4080": Gpu(15.57, 16_376, 97.5),
    "rtx4080super": Gpu(15.56, 16_376, 104.4),
    "rtx4090": Gpu(23.49, 24_564, 165.2),
    "rtx5060ti-16gb": Gpu(15.45, 16_311, 47.4),
    "rtx5070": Gpu(11.50, 12_227, 61.7),
    "rtx5070ti": Gpu(15.44, 16_303, 87.9),
    "rtx5080": Gpu(15.47, 16_303, 112.6),
    "rtx5090": Gpu(31.34, 32_607, 209.5),
    "mi210": Gpu(63.98, 65_520, 181),
    "mi250x": Gpu(63.98, 65_520, 191.5),
    "mi300x": Gpu(191.69, 196_592, 1307.4),
    "mi325x": Gpu(255.69, 262_128, 1307.4),
    "mi355x": Gpu(287.98, 294_896, 2516.6),
    "rx7900xtx": Gpu(23.98, 24_560, 122.8),
}
_ALIASES = {
    "a100": "a100-80gb", "v100": "v100-16gb", "rtx8000": "quadro-rtx8000", "dgxspark": "gb10",
    "rtx6000pro": "rtxpro6000", "rtxpro6000maxq": "rtxpro6000",
}  # fmt: skip
_SIZE = re.compile(r"(?<![a-z0-9])(\d+)\s*gi?b?(?![a-z0-9])")
# What nvidia-smi and shops write beside; not "pcie", which is another H100
_BESIDE = re.compile(
    r"nvidia|amd|geforce|tesla|radeon|instinct|gpu|generation|blackwell|workstation|server|edition|sxm\d?|hbm\d\w?|ac"
)
_OF_THE_CPU = re.compile(r"(?<=gh200)[\s-]*(?:120|480)gb")
_NEAR = 0.07  # of the size that is said: L4 has 22.5 of 24
_LEAST_MEMORY = 64 * 2**20
_WIDTH = 71  # of a terminal's 80, beside the word "try"


def find_gpu(name: str) -> Gpu:
    """The GPU of this name, as the table, nvidia-smi, a shop or people write it: `NVIDIA RTX A5000`, `4070 ti super`.

    Raises UsageError for others, and for a name that cards of several sizes have, without one (`RTX 3080`).
    """
    said = _OF_THE_CPU.sub("", name.lower().replace("_", " "))
    sizes = [int(size) for size in _SIZE.findall(said)]
    words = [word for word in re.findall("[a-z0-9]+", _SIZE.sub(" ", said)) if not _BESIDE.fullmatch(word)]
    model = re.sub(r"^rtx(?=a\d)", "", "".join(words))
    model = model if model.startswith("h") else model.removesuffix("pcie")
    exact, alike = _named(model)
    fit = [key for key in alike if all(abs(GPUS[key].smi_mib / (size * 1024) - 1) < _NEAR for size in sizes)]
    if exact in fit:
        return GPUS[exact]
    if sizes and len(fit) == 1:
        return GPUS[fit[0]]
    close = alike or get_close_matches(model, GPUS, n=1)
    names = (
        f"did you mean {' or '.join(close)}?"
        if close
        else fill(f"one of {', '.join(GPUS)}", _WIDTH, break_on_hyphens=False)
    )
    way_out = f"{names}\nElse say its size: --gpu-memory 24GB"
    raise UsageError(f"there is no GPU {name[:60]!r} in the table.", where="--gpu", way_out=way_out)


def _named(model: str) -> tuple[str | None, list[str]]:
    """The GPU that is called so, and all whose names go on from there or are a Quadro's; "4090" lacks its series."""
    names = {**{key.replace("-", ""): key for key in GPUS}, **_ALIASES}
    for whole in (model, f"rtx{model}", f"rx{model}"):
        exact = names.get(whole)
        alike = [key for key in GPUS if key in (exact, f"quadro-{whole}") or key.startswith(f"{whole}-")]
        if alike:
            return exact, alike
    return None, []


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
