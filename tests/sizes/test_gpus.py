"""Names of GPUs and their memory, as users write them."""

from __future__ import annotations

import pytest

from estimator.errors import UsageError
from estimator.sizes.memory.gpus import GPUS, find_gpu, gpu_bytes, memory_bytes


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *((key, key) for key in GPUS),
        ("NVIDIA A100-80GB", "a100-80gb"),
        ("a100", "a100-80gb"),
        ("A100 40 GB", "a100-40gb"),
        ("a100_80g", "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb"),
        ("Tesla V100-SXM2-32GB", "v100-32gb"),
        ("Tesla T4", "t4"),
        ("NVIDIA A10G", "a10g"),
        ("L4 (24 GB)", "l4"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("H200 141GB", "h200"),
        ("RTX 4090", "rtx4090"),
        ("NVIDIA GeForce RTX 3090", "rtx3090"),
        ("3090 24GB", "rtx3090"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx6000-ada"),
        ("NVIDIA RTX A6000", "a6000"),
    ],
)
def test_spellings_of_one_gpu(name: str, key: str) -> None:
    assert find_gpu(name) is GPUS[key]


@pytest.mark.parametrize("name", ["H100 PCIe", "H100 94GB", "RTX 3090 Ti", "A100 48GB", "4xA100", "nvidia", ""])
def test_others_are_not_taken_for_one(name: str) -> None:
    with pytest.raises(UsageError, match="no GPU"):
        find_gpu(name)


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
