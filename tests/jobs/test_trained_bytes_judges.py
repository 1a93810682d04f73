"""What lies in memory of adapters that train in part, or beside parts of the base: PEFT, torch's AdamW and autograd."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from estimator.jobs.base import BaseCache
from estimator.jobs.estimate import estimate
from estimator.jobs.planning.memory import loaded_of
from estimator.request.request import Request
from estimator.request.training_config import Freezing
from estimator.sizes.memory.activations.matrix import Setting
from estimator.sizes.memory.activations.step import training_step
from estimator.sizes.memory.optimizers import state_bytes
from estimator.sizes.memory.training import Training

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.judges

LLAMA = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 64, "model_type": "llama",
    "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16",
}  # fmt: skip
DEEP = LLAMA | {"num_hidden_layers": 8}
WITH_BIAS = LLAMA | {"attention_bias": True, "mlp_bias": True}
TIED = LLAMA | {"tie_word_embeddings": True}
MIXTRAL = LLAMA | {
    "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_local_experts": 4, "num_experts_per_tok": 2,
}  # fmt: skip
GPT2 = {
    "n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 128, "n_positions": 64, "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"], "dtype": "bfloat16", "resid_pdrop": 0.0, "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}  # fmt: skip
PHI3 = LLAMA | {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "pad_token_id": 0}
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj", "up_proj"]}
Q_ALONE = {"r": 4, "target_modules": ["q_proj"]}
ON_EXPERTS = Q_ALONE | {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
LORA_BIAS = LORA | {"lora_bias": True}
ON_GPT2 = {"r": 4, "target_modules": ["c_attn"], "fan_in_fan_out": True}
ON_QKV = {"r": 4, "target_modules": ["qkv_proj"]}
BATCH, LENGTH = 2, 16

CASES = [
    pytest.param(LLAMA, LORA, None, id="all of LoRA"),
    pytest.param(LLAMA, LORA, (".+lora_A",), id="A alone: what goes into B is not kept"),
    pytest.param(LLAMA, LORA, (".+lora_B",), id="B alone: what goes into A is not kept"),
    pytest.param(LLAMA, LORA, (".+layers.1.+lora_",), id="one layer"),
    pytest.param(LLAMA, LORA, (".+lora_", ".+embed_tokens"), id="the embeddings beside it"),
    pytest.param(TIED, LORA, (".+lora_", ".+embed_tokens"), id="embeddings that are the head"),
    pytest.param(LLAMA, LORA, (".+lora_", ".+norm"), id="the norms beside it"),
    pytest.param(LLAMA, LORA, (".+input_layernorm",), id="norms alone"),
    pytest.param(LLAMA, LORA, (".+lora_", ".+k_proj"), id="a matrix of the base beside it"),
    pytest.param(WITH_BIAS, LORA, (".+layers.2.+down_proj",), id="a matrix of the last layer, and its bias"),
    pytest.param(LLAMA, LORA | {"modules_to_save": ["lm_head"]}, None, id="a copy of the head"),
    pytest.param(LLAMA, LORA | {"modules_to_save": ["input_layernorm"]}, None, id="copies of norms"),
    pytest.param(LLAMA, LORA | {"trainable_token_indices": [1, 2]}, None, id="rows of tokens"),
    pytest.param(TIED, LORA | {"trainable_token_indices": [1, 2]}, None, id="rows of tokens and of the head"),
    pytest.param(LLAMA, LORA | {"init_lora_weights": "mica"}, None, id="MiCA freezes B"),
    pytest.param(WITH_BIAS, LORA | {"bias": "all"}, None, id="biases are the base's own"),
    pytest.param(WITH_BIAS, LORA | {"bias": "lora_only"}, (".+bias",), id="biases alone"),
    pytest.param(DEEP, LORA, (".+model.norm",), id="the last norm alone"),
    pytest.param(DEEP, LORA, (".+lm_head",), id="the head alone"),
    pytest.param(DEEP, LORA, (".+layers.4.input_layernorm",), id="a norm of one layer"),
    pytest.param(DEEP, LORA, (".+layers.7.+norm", ".+layers.7.+lora_"), id="the last layer's norms and LoRA"),
    pytest.param(DEEP, LORA | {"modules_to_save": ["layers.7.input_layernorm"]}, None, id="a copy of one norm"),
    pytest.param(GPT2, ON_GPT2, (".+ln_f",), id="GPT-2, the last norm alone"),
    pytest.param(LLAMA, LORA_BIAS, None, id="B has a bias"),
    pytest.param(LLAMA, LORA_BIAS, (".+lora_B.+weight",), id="B without its bias"),
    pytest.param(LLAMA, LORA_BIAS, (".+bias",), id="the biases of B alone"),
    pytest.param(LLAMA, Q_ALONE | {"modules_to_save": ["mlp"]}, None, id="copies of modules that hold others"),
    pytest.param(LLAMA, Q_ALONE | {"modules_to_save": ["self_attn.k_proj", "mlp"]}, None, id="beside another"),
    pytest.param(LLAMA, LORA | {"target_modules": ["up_proj"], "modules_to_save": ["self_attn"]}, None, id="attention"),
    pytest.param(GPT2, ON_GPT2 | {"modules_to_save": ["mlp"]}, None, id="GPT-2, copies of the MLP"),
    pytest.param(PHI3, ON_QKV, None, id="value is a view of one matrix, which stays"),
    pytest.param(MIXTRAL, ON_EXPERTS, (".+self_attn.+lora_",), id="fused experts whose LoRA is frozen"),
    pytest.param(MIXTRAL, ON_EXPERTS, (".+2.mlp.experts.+lora_", ".+self_attn.+lora_"), id="but for the last layer's"),
    pytest.param(MIXTRAL, Q_ALONE, (".+mlp.experts",), id="fused experts themselves"),
    pytest.param(GPT2, ON_GPT2, (".+lora_A",), id="GPT-2, A alone"),
    pytest.param(GPT2, ON_GPT2, (".+ln_.+bias",), id="GPT-2, biases of the norms"),
]


@pytest.mark.parametrize(("config", "lora", "unfrozen"), CASES)
def test_added_gradients_and_moments_are_exact_and_activations_near(
    tmp_path: Path, config: dict, lora: dict, unfrozen: tuple[str, ...] | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    freezing = Freezing(unfrozen=unfrozen) if unfrozen else None
    bases = BaseCache()
    request = Request(model=str(tmp_path), offline=True, lora=lora, freezing=freezing)
    loaded = loaded_of(estimate(request, bases=bases), bases)
    training = Training(batch_size=BATCH, sequence_length=LENGTH)
    setting = Setting(shape=loaded.shape, training=training, adapter=loaded.adapter, base_width=2)

    model, added = adapted(config, lora, unfrozen)
    kept = step(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    optimizer.step()
    state = [value for one in optimizer.state.values() for value in one.values() if torch.is_tensor(value)]

    assert loaded.adapter.added_bytes == added
    assert loaded.adapter.parameter_bytes == bytes_of(p.grad for p in trained)
    assert state_bytes("adamw_torch", loaded.trained) == bytes_of(state)
    assert training_step(setting, gradient_bytes=0).kept == pytest.approx(kept, rel=0.03)


def adapted(config: dict, lora: dict, unfrozen: tuple[str, ...] | None):
    """The model with its adapter, and what that adds in bytes."""
    torch.manual_seed(0)
    built = transformers.AutoConfig.for_model(**{k: v for k, v in config.items() if k != "architectures"})
    base = transformers.AutoModelForCausalLM.from_config(built, dtype=torch.bfloat16)
    before = bytes_of((*base.parameters(), *base.buffers()))
    model = peft.get_peft_model(base, peft.LoraConfig(**lora))
    for name, parameter in model.named_parameters():
        if unfrozen:
            parameter.requires_grad_(any(re.match(pattern, name) for pattern in unfrozen))
    return model, bytes_of((*model.parameters(), *model.buffers())) - before


def step(model) -> int:
    """Bytes that autograd keeps between the passes, beside the weights."""
    weights = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    tokens = torch.randint(0, 128, (BATCH, LENGTH))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss  # as Trainer has it
    loss.backward()
    return sum(storage.nbytes() for storage in kept.values())


def bytes_of(tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
