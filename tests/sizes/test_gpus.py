"""Names of GPUs and their memory, as users write them."""

from __future__ import annotations

import re

import pytest

from estimator.cli.main import main
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
        ("RTX A5000", "a5000"),
        ("A2000 12GB", "a2000-12gb"),
        ("Tesla P100-PCIE-16GB", "p100"),
        ("NVIDIA A800-SXM4-80GB", "a800"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("H100 94GB", "h100-nvl"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("GH200 96GB", "gh200"),
        ("NVIDIA B300 SXM6 AC", "b300"),
        ("DGX Spark", "gb10"),
        ("NVIDIA GB10", "gb10"),
        ("Quadro RTX 8000", "quadro-rtx8000"),
        ("RTX 8000", "quadro-rtx8000"),
        ("Quadro RTX 6000", "quadro-rtx6000"),
        ("RTX 6000 24GB", "quadro-rtx6000"),
        ("RTX 6000 48GB", "rtx6000-ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtxpro6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "rtxpro6000"),
        ("RTX 6000 Pro", "rtxpro6000"),
        ("NVIDIA TITAN RTX", "titan-rtx"),
        ("2080 Ti", "rtx2080ti"),
        ("RTX 3060 12GB", "rtx3060"),
        ("NVIDIA GeForce RTX 3080 (12 GB)", "rtx3080-12gb"),
        ("3080 10g", "rtx3080-10gb"),
        ("4070 ti super", "rtx4070tisuper"),
        ("RTX 4060 Ti 16GB", "rtx4060ti-16gb"),
        ("5060ti 16gb", "rtx5060ti-16gb"),
        ("AMD Instinct MI300X", "mi300x"),
        ("mi300x 192GB", "mi300x"),
        ("AMD Radeon RX 7900 XTX", "rx7900xtx"),
        ("7900 xtx", "rx7900xtx"),
    ],
)
def test_spellings_of_one_gpu(name: str, key: str) -> None:
    assert find_gpu(name) is GPUS[key]


@pytest.mark.parametrize(
    "name",
    [
        *("A100 48GB", "4xA100", "nvidia", "24GB", "", "RTX 3060 8GB", "RTX 3060 Ti", "RTX 3080 20GB", "H20 141GB"),
        *("GH200 144G HBM3e", "H800 PCIe", "RTX 5060 Ti 8GB", "RTX 4090 Laptop GPU", "MI250X 128GB", "RTX 4000"),
    ],
)
def test_others_are_not_taken_for_one(name: str) -> None:
    with pytest.raises(UsageError, match="no GPU"):
        find_gpu(name)


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("RTX 3080", "rtx3080-10gb or rtx3080-12gb"),
        ("NVIDIA GeForce RTX 4060 Ti", "rtx4060ti-8gb or rtx4060ti-16gb"),
        ("5060 ti", "rtx5060ti-16gb"),
        ("RTX 6000", "rtx6000-ada or quadro-rtx6000"),
        ("rtx4091", "rtx4090"),
    ],
)
def test_a_name_of_several_or_none_is_refused_with_its_neighbours(name: str, choices: str) -> None:
    with pytest.raises(UsageError) as refusal:
        find_gpu(name)
    assert refusal.value.way_out.startswith(f"did you mean {choices}?")


def test_cuda_reports_less_than_the_name_says() -> None:
    assert 79 * 2**30 < gpu_bytes("a100-80gb") < 80 * 2**30


@pytest.mark.parametrize("name", GPUS)
def test_cuda_reports_a_little_less_than_nvidia_smi(name: str) -> None:
    gpu = GPUS[name]
    hidden = gpu.smi_mib / 1024 - gpu.cuda_gib
    if name.startswith(("mi", "rx")):  # torch shows what rocm-smi does, or less
        assert -0.01 < hidden < 0.31
    else:
        assert 0.1 <= hidden <= (2.1 if name == "gb10" else 1.1)


@pytest.mark.parametrize("text", ["24", "80", "1kB"])
def test_what_no_gpu_has_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no GPU has"):
        memory_bytes(text, "--gpu-memory")


def test_the_list_of_all_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "-m", "gpt2", "--gpu", "nonsense"])
    shown = capsys.readouterr().err
    assert set(GPUS) <= set(re.findall(r"[\w-]+", shown))
    assert max(map(len, shown.splitlines())) <= 80
