"""Names of GPUs and their memory, as users write them."""

from __future__ import annotations

import pytest

from estimator.errors import UsageError
from estimator.sizes.memory.gpus import GPUS, gpu_bytes, memory_bytes


@pytest.mark.parametrize(
    ("name", "same"), [("NVIDIA A100-80GB", "a100"), ("RTX 4090", "rtx4090"), ("GeForce RTX 3090", "3090")]
)
def test_spellings_of_one_gpu(name: str, same: str) -> None:
    assert gpu_bytes(name) == gpu_bytes(same)


def test_cuda_reports_less_than_the_name_says() -> None:
    assert 79 * 2**30 < gpu_bytes("a100-80gb") < 80 * 2**30


@pytest.mark.parametrize("name", GPUS)
def test_cuda_reports_a_little_less_than_nvidia_smi(name: str) -> None:
    gpu = GPUS[name]
    assert 0.1 <= gpu.smi_mib / 1024 - gpu.cuda_gib <= 1.1


@pytest.mark.parametrize("text", ["24", "80", "1kB"])
def test_what_no_gpu_has_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no GPU has"):
        memory_bytes(text, "--gpu-memory")


def test_an_unknown_gpu_is_refused_with_its_neighbour() -> None:
    with pytest.raises(UsageError) as refusal:
        gpu_bytes("rtx4091")
    assert "rtx40" in refusal.value.way_out
