"""Scans along the sequence: what is read off a layer, and what transformers' torch and autograd keep of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from estimator.architecture.from_config import from_config
from estimator.jobs.base import BaseCache
from estimator.jobs.estimate import estimate
from estimator.jobs.planning.memory import loaded_of
from estimator.request.request import Request
from estimator.sizes.memory.activations.matrix import Setting
from estimator.sizes.memory.activations.step import training_step
from estimator.sizes.memory.shape import shape_of
from estimator.sizes.memory.training import Software, Training


@pytest.mark.parametrize(
    ("architecture", "fields", "found"),
    [
        ("MambaForCausalLM", {}, ("mamba", 1536, 1536, 1536, 16, 1)),
        ("JambaForCausalLM", {}, ("mamba", 8192, 8192, 8192, 16, 1)),
        ("Mamba2ForCausalLM", {"state_size": 128, "chunk_size": 64}, ("mamba2", 8192, 10_240, 128, 128, 64)),
        ("BambaForCausalLM", {"mamba_d_state": 256}, ("mamba2", 8192, 8704, 128, 256, 256)),
        ("Qwen3NextForCausalLM", {"linear_key_head_dim": 128}, ("delta", 4096, 8192, 32, 128, 64)),
        ("Qwen3_5ForCausalLM", {"linear_key_head_dim": 128}, ("delta", 4096, 8192, 32, 128, 64)),
        ("Qwen3NextForCausalLM", {"linear_key_head_dim": None}, None),
        ("KimiLinearForCausalLM", {}, None),
        ("RwkvForCausalLM", {}, None),
    ],
)
def test_what_is_read_of_a_scan(architecture: str, fields: dict, found: tuple | None) -> None:
    """Kind, channels in and out, channels of the convolution, heads, state, chunk."""
    tree = from_config({"architectures": [architecture]})
    shape = shape_of(tree._replace(config={**tree.config, **fields}))
    scans = [block.scan for block in shape.blocks if block.scan]
    assert bool(shape.states) == (found is None)
    assert (
        not scans
        if found is None
        else {(s.kind, s.inner, s.convolved, s.heads, s.state, s.chunk) for s in scans} == {found}
    )


@pytest.mark.parametrize(
    ("architecture", "fields", "wide"),
    [
        ("MambaForCausalLM", {}, True),
        ("MambaForCausalLM", {"residual_in_fp32": False}, False),
        ("Mamba2ForCausalLM", {"state_size": 128}, True),
        ("JambaForCausalLM", {}, False),
        ("Qwen3NextForCausalLM", {"linear_key_head_dim": 128}, False),
    ],
)
def test_what_lies_between_layers_is_float32(architecture: str, fields: dict, wide: bool) -> None:
    """residual_in_fp32, which only classes that are scans throughout turn on by themselves."""
    tree = from_config({"architectures": [architecture]})
    assert shape_of(tree._replace(config={**tree.config, **fields})).wide_sums is wide


SMALL = {"hidden_size": 48, "vocab_size": 64, "intermediate_size": 40, "num_attention_heads": 2, "head_dim": 16}
GROUPED = SMALL | {"num_key_value_heads": 1}
OF_BAMBA = {"mamba_d_state": 12, "mamba_expand": 2, "mamba_n_heads": 4, "mamba_d_head": 24, "mamba_n_groups": 2,
            "mamba_chunk_size": 32}  # fmt: skip
MODELS = {
    "mamba": ("MambaForCausalLM", SMALL | {"state_size": 12, "num_hidden_layers": 2, "time_step_rank": 5}),
    "falcon mamba": ("FalconMambaForCausalLM", SMALL | {"state_size": 12, "num_hidden_layers": 2, "time_step_rank": 5}),
    "jamba, and attention": ("JambaForCausalLM", GROUPED | {
        "mamba_d_state": 12, "mamba_dt_rank": 5, "num_hidden_layers": 3, "attn_layer_period": 3, "attn_layer_offset": 1,
        "expert_layer_period": 8, "expert_layer_offset": 5, "num_experts": 1, "num_experts_per_tok": 1}),
    "mamba 2": ("Mamba2ForCausalLM", SMALL | {
        "state_size": 12, "num_heads": 4, "head_dim": 24, "n_groups": 2, "chunk_size": 32, "num_hidden_layers": 2}),
    "bamba": ("BambaForCausalLM", GROUPED | OF_BAMBA | {"num_hidden_layers": 2, "attn_layer_indices": [1]}),
    "falcon h1, side by side": ("FalconH1ForCausalLM", GROUPED | OF_BAMBA | {
        "mamba_d_ssm": 96, "num_hidden_layers": 2}),
    "nemotron h, one by one": ("NemotronHForCausalLM", GROUPED | {
        "ssm_state_size": 12, "mamba_num_heads": 4, "mamba_head_dim": 24, "n_groups": 2, "chunk_size": 32,
        "layers_block_type": ["mamba", "mlp", "attention", "mamba"]}),
    "qwen3 next": ("Qwen3NextForCausalLM", GROUPED | {
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 12, "linear_value_head_dim": 8,
        "num_hidden_layers": 3, "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "mlp_only_layers": [0, 1, 2], "num_experts": 0}),
    "lfm2, short convolutions": ("Lfm2ForCausalLM", GROUPED | {
        "num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}),
}  # fmt: skip


@pytest.mark.judges
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["whole", "checkpointed"])
def test_a_step_in_torch_is_near(tmp_path: Path, name: str, checkpointing: bool) -> None:
    """What is kept between the passes, and the most that lives in the walk back; the floor lies below both."""
    torch, transformers, peft = (pytest.importorskip(m) for m in ("torch", "transformers", "peft"))
    from tests.sizes.living_bytes import LivingBytes

    torch.manual_seed(0)
    architecture, fields = MODELS[name]
    cls = getattr(transformers, architecture)
    base = cls(cls.config_class(**fields)).to(torch.bfloat16)
    base.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": [architecture]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    lora = {"r": 2, "target_modules": ["in_proj", "in_proj_qkvz", "q_proj", "w1"]}
    bases = BaseCache()
    loaded = loaded_of(estimate(Request(model=str(tmp_path), offline=True, lora=lora), bases=bases), bases)
    training = Training(batch_size=1, sequence_length=140, gradient_checkpointing=checkpointing)
    setting = Setting(shape=loaded.shape, training=training, adapter=loaded.adapter, base_width=2)
    kernels = Setting(shape=loaded.shape, training=training, adapter=loaded.adapter, base_width=2,
                      software=Software(fused_scans=True))  # fmt: skip
    gradients = loaded.adapter.parameter_bytes
    step, floor = (training_step(one, gradients) for one in (setting, kernels))

    model = peft.get_peft_model(base, peft.LoraConfig(**lora)).train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    tokens = torch.randint(0, 64, (1, 140))
    kept, most = LivingBytes(model, tokens).of_a_step(use_cache=False)

    assert loaded.shape.states == 0
    assert floor.kept <= kept
    assert floor.backward <= most
    assert max(step.forward, step.loss, step.backward) == pytest.approx(most, rel=0.12)
    if not checkpointing:
        assert step.kept == pytest.approx(kept, rel=0.05)
