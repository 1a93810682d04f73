"""Names of adapters on bases whose names transformers converts: what PEFT makes of them, and PEFT as the judge."""

from __future__ import annotations

import pytest

from estimator.architecture.module import ModuleTree
from estimator.jobs.base import BaseCache
from estimator.lora.converted_names import converted_names
from estimator.request.request import Request

GEMMA, MIXTRAL, QWEN = "google/gemma-3-4b-it", "mistralai/Mixtral-8x7B-v0.1", "Qwen/Qwen2.5-0.5B"
PREFIX, Q = "base_model.model.", "layers.0.self_attn.q_proj.lora_A.weight"
TODAY = f"{PREFIX}model.language_model.{Q}"


# Each truth is PEFT 0.21.2's convert_peft_adapter_state_dict_for_transformers with transformers 5.23.0.
@pytest.mark.parametrize(
    ("base", "stored", "becomes"),
    [
        pytest.param(GEMMA, TODAY, TODAY, id="as PEFT saves it"),
        pytest.param(GEMMA, f"{PREFIX}language_model.model.{Q}", TODAY, id="before transformers 4.52"),
        pytest.param(GEMMA, f"language_model.model.{Q}", TODAY, id="no prefix, before transformers 4.52"),
        pytest.param(GEMMA, f"model.language_model.{Q}", TODAY, id="no prefix"),
        pytest.param(GEMMA, f"model.{Q}", f"{PREFIX}model.{Q}", id="a name of no release"),
        pytest.param(GEMMA, f"{PREFIX}{TODAY}", f"{PREFIX}{TODAY}", id="the prefix twice stays"),
        pytest.param(GEMMA, f"base_model.{Q}", f"base_model.{Q}", id="half the prefix stays"),
        pytest.param(GEMMA, "language_model.lm_head.weight", "language_model.lm_head.weight", id="none of LoRA's"),
        pytest.param(MIXTRAL, f"model.{Q}", f"{PREFIX}model.{Q}", id="experts alone are converted: the prefix is put"),
        pytest.param(QWEN, f"model.{Q}", f"model.{Q}", id="nothing is converted"),
    ],
)  # fmt: skip
def test_names_become(base: str, stored: str, becomes: str) -> None:
    assert converted_names(_tree(base), [stored]).get(stored, stored) == becomes


def _tree(base: str) -> ModuleTree:
    return BaseCache().base(Request(model=base, offline=True), None).tree


CLASSES = (
    "Gemma3ForConditionalGeneration",
    "Mistral3ForConditionalGeneration",
    "LagunaForCausalLM",
    "MixtralForCausalLM",
)
FORMS = (
    ("model.", "model."),
    ("model.", PREFIX),
    ("", ""),
    ("", PREFIX),
    ("model.language_model.", "language_model.model."),
    ("model.language_model.", f"{PREFIX}language_model.model."),
    ("model.language_model.", f"{PREFIX}language_model."),
    ("", "base_model."),
    ("", PREFIX + PREFIX),
)


@pytest.mark.judges
@pytest.mark.parametrize("name", CLASSES)
def test_peft_converts_the_same(name: str, tmp_path) -> None:
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    pytest.importorskip("transformers")
    from peft.utils.transformers_weight_conversion import convert_peft_adapter_state_dict_for_transformers as convert

    from estimator.architecture.surveying import tiny

    config = tiny.make(name, tiny.base_fields(name))
    model = tiny.build(name, config)
    config.architectures = [name]
    config.save_pretrained(tmp_path)
    tree, lora = _tree(str(tmp_path)), peft.LoraConfig(target_modules="all-linear")
    modules = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    adapted = peft.get_peft_model(model, lora, low_cpu_mem_usage=True)
    for before, after in FORMS:
        names = [f"{after}{module.removeprefix(before)}.lora_A.weight" for module in modules]
        made = convert(adapted, lora, {name: torch.full((1,), number) for number, name in enumerate(names)})
        real = {names[int(number)]: name for name, number in made.items()}
        assert {name: name for name in names} | converted_names(tree, names) == real
