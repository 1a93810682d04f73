"""Bytes that live during a real training step of towers of images and sound, counted as `step_truth.py` counts them.

    python benchmarks/tower_truth.py > fixtures/memory/towers.jsonl

LoRA r 8 on all linear layers but heads, bfloat16, four examples: of each model a line with its config, and of each run
attention, checkpointing and the peak of forward and backward beside base and adapter, the batch itself left out.
"""

import json

import torch
import transformers
from peft import LoraConfig, get_peft_model
from step_truth import Tracker, flash_attention, materialise
from torch._subclasses.fake_tensor import FakeTensorMode

BATCH, TOKENS, RANK = 4, 448, 8
HEADS = r".*(classifier|lm_head|proj_out)$"
IMAGE = {"pixel_values": (BATCH, 3, 224, 224)}
SMALL_WHISPER = {
    **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in
       (("layers", 4), ("attention_heads", 8), ("ffn_dim", 2048))},
    "d_model": 512,
}  # fmt: skip
CLIP = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "patch_size": 14}
MODELS = {
    "ViTForImageClassification": ({}, {**IMAGE, "labels": (BATCH,)}),
    "DeiTModel": ({}, IMAGE),
    "SiglipVisionModel": ({}, IMAGE),
    "CLIPVisionModel": (CLIP, IMAGE),
    "Dinov2Model": ({}, IMAGE),
    "Dinov2WithRegistersModel": ({}, IMAGE),
    "ASTModel": ({}, {"input_values": (BATCH, 1024, 128)}),
    "WhisperForConditionalGeneration": (
        SMALL_WHISPER, {"input_features": (BATCH, 80, 3000), "labels": (BATCH, TOKENS)},
    ),
}  # fmt: skip


def build(name, fields, attention, *, checkpointing):
    """The adapted model on the meta device, and its config."""
    transformers.AttentionInterface.register("counted_flash", flash_attention)
    cls = getattr(transformers, name)
    config = cls.config_class(**fields)
    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = cls._from_config(config, dtype=torch.bfloat16)
        for module in model.modules():
            if attention != "eager" and hasattr(module, "config"):
                module.config._attn_implementation = "counted_flash"
        if checkpointing:
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
        lora = LoraConfig(r=RANK, target_modules="all-linear", exclude_modules=HEADS)
        return get_peft_model(model, lora).train(), config


def measure(model, inputs):
    """Bytes of the second step's peak."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        materialise(model)
        with (tracker := Tracker()):
            data = {
                n: torch.empty(s, dtype=torch.int64 if n == "labels" else torch.bfloat16) for n, s in inputs.items()
            }
            for tensor in (*model.parameters(), *model.buffers(), *data.values()):
                tracker.see(tensor)
            optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], foreach=True)
            for _ in range(2):
                before = tracker.now
                tracker.peaks.clear()
                tracker.phase = "step"
                out = model(**data)
                loss = out.loss if "labels" in data else out.last_hidden_state.float().mean()
                del out
                loss.backward()
                del loss  # with what the graph's ends hold
                peak = tracker.peaks["step"] - before
                tracker.phase = "optimizer"
                optimizer.step()
                optimizer.zero_grad()
    return peak


def main():
    for name, (fields, inputs) in MODELS.items():
        runs = []
        for attention in ("sdpa", "eager"):
            for checkpointing in (False, True):
                model, config = build(name, fields, attention, checkpointing=checkpointing)
                runs.append([attention, checkpointing, measure(model, inputs)])
        said = {**fields, "architectures": [name], "model_type": config.model_type}
        row = {"config": said, "batch_size": BATCH, "sequence_length": TOKENS, "r": RANK, "runs": runs}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
