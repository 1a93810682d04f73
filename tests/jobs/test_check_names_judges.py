"""Adapters named as another class of the same model: PEFT loads nothing of them, and `check` says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from estimator.jobs.checking.check import check
from tests.hub.models import safetensors

# A class, the task, and the auto class whose names the file has; "" is the class itself.
PAIRS = [
    ("LlamaForCausalLM", "CAUSAL_LM", "AutoModel"),
    ("LlamaForCausalLM", "FEATURE_EXTRACTION", ""),
    ("GPT2LMHeadModel", "SEQ_CLS", "AutoModel"),
    ("BertForMaskedLM", "SEQ_CLS", "AutoModel"),
    ("MixtralForCausalLM", "CAUSAL_LM", "AutoModel"),
    ("Gemma3ForConditionalGeneration", "CAUSAL_LM", "AutoModel"),
    ("Qwen2_5_VLForConditionalGeneration", "CAUSAL_LM", "AutoModel"),
    ("Qwen2_5_VLForConditionalGeneration", "CAUSAL_LM", ""),
]
_TASKS = {"FEATURE_EXTRACTION": "AutoModel", "SEQ_CLS": "AutoModelForSequenceClassification"}


@pytest.mark.judges
@pytest.mark.parametrize(("name", "task", "named_by"), PAIRS)
def test_names_of_another_class(name: str, task: str, named_by: str, tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    from estimator.architecture.surveying import tiny

    config = tiny.make(name, tiny.base_fields(name))
    config.architectures = [name]
    config.save_pretrained(tmp_path)

    def adapted(auto: str, task_type: str | None) -> object:
        model = (
            getattr(transformers, auto).from_config(config) if auto else tiny.build(name, config).to_empty(device="cpu")
        )
        return peft.get_peft_model(
            model, peft.LoraConfig(r=2, target_modules=r".*(q_proj|query|c_attn)", task_type=task_type)
        )

    def state(model: object) -> dict[str, object]:
        return dict(peft.get_peft_model_state_dict(model, save_embedding_layers=False))

    mine = adapted(_TASKS.get(task, ""), task)
    heads = {name: value for name, value in state(mine).items() if ".lora_" not in name}
    theirs = {name: value for name, value in state(adapted(named_by, None)).items() if ".lora_" in name}
    outcome = peft.set_peft_model_state_dict(mine, {**theirs, **heads})
    lost = {name.replace(".default", "") for name in outcome.unexpected_keys}
    assert lost == ({*theirs} if named_by != _TASKS.get(task, "") else set())
    said = {"peft_type": "LORA", "task_type": task, "r": 2, "target_modules": r".*(q_proj|query|c_attn)"}
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({**said, "base_model_name_or_path": str(tmp_path)}))
    held = {name: ("F32", tuple(value.shape)) for name, value in sorted({**theirs, **heads}.items())}
    (adapter / "adapter_model.safetensors").write_bytes(safetensors(held))
    (row,) = check([str(adapter)])
    assert [problem.code for problem in row.problems] == (["names_of_another_class"] if lost else [])
