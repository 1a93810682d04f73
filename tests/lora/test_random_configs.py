"""PEFT judges: random LoraConfigs on tiny models of many families, every number and every tensor compared.

    LORA_SIZE_DRAWS=3000 LORA_SIZE_SEED=7 python -m pytest -m judges tests/lora/test_random_configs.py

LORA_SIZE_DRAWS is for all families together. A failure prints the seed and the config that repeat it.
"""

from __future__ import annotations

import os

import pytest

from tests.lora.judge.families import FAMILIES

pytestmark = pytest.mark.judges

DRAWS = int(os.environ.get("LORA_SIZE_DRAWS", "150"))
SEED = int(os.environ.get("LORA_SIZE_SEED", "0"))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_estimate_is_what_peft_does(family: str, tmp_path) -> None:
    for name in ("torch", "transformers", "peft"):
        pytest.importorskip(name)
    from tests.lora.judge.run import differing

    found = differing(family, max(1, DRAWS // len(FAMILIES)), SEED, tmp_path)
    assert not found, "\n".join(map(str, found))
