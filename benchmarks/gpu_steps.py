"""Peaks of real training steps on a GPU, one JSON line a run: `python benchmarks/gpu_steps.py > steps.jsonl`.

Models are made from config alone, with random weights: memory does not depend on their values. Each run is a process of
its own, so that one that runs out of memory takes nothing along. Needs torch with CUDA, transformers and peft;
bitsandbytes for nf4, liger-kernel for the fused loss.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys

import step_shapes

SHAPES = {name: step_shapes.SHAPES[name] for name in ("qwen2-0.5b", "llama-1b", "gemma-2b", "mistral-7b", "llama-8b")}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def runs():
    """Every run as a dict, small ones first."""
    lengths, switches = (512, 2048, 8192), (True, False)
    for shape, precision, batch, length, checkpointing, fused in itertools.product(
        SHAPES, ("bf16", "nf4"), (1, 4, 8), lengths, switches, switches
    ):
        yield {"shape": shape, "precision": precision, "batch_size": batch, "sequence_length": length,
               "gradient_checkpointing": checkpointing, "fused_loss": fused, "r": 16}  # fmt: skip


def quantised(model):
    """The model with every linear layer but the head in nf4, as from_pretrained would load it."""
    import bitsandbytes as bnb
    import torch

    for name, module in list(model.named_modules()):
        if type(module) is torch.nn.Linear and name != "lm_head":
            parent = model.get_submodule(name.rpartition(".")[0])
            packed = bnb.nn.Linear4bit(
                module.in_features, module.out_features, module.bias is not None, torch.bfloat16, quant_type="nf4"
            )
            packed.weight = bnb.nn.Params4bit(module.weight.data.cpu(), requires_grad=False, quant_type="nf4")
            setattr(parent, name.rpartition(".")[2], packed.to("cuda"))
    return model


def build(run):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    if run["fused_loss"]:
        from liger_kernel.transformers import _apply_liger_kernel

        model_type = SHAPES[run["shape"]]["model_type"]
        only_loss = {"rope": False, "rms_norm": False, "cross_entropy": False, "fused_linear_cross_entropy": True}
        _apply_liger_kernel(model_type, **only_loss)
    fields = dict(SHAPES[run["shape"]])
    config = AutoConfig.for_model(fields.pop("model_type"), max_position_embeddings=16_384, **fields)
    with torch.device("cpu" if run["precision"] == "nf4" else "cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    model = (quantised(model) if run["precision"] == "nf4" else model).to("cuda")
    if run["gradient_checkpointing"]:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    return get_peft_model(model, LoraConfig(r=run["r"], target_modules=TARGETS, lora_dropout=0.0)).train()


def measure(run, steps=3):
    """The run with its peaks, in bytes, over whole steps after the model was loaded."""
    import peft
    import torch
    import transformers

    model = build(run)
    optimizer = torch.optim.AdamW(parameter for parameter in model.parameters() if parameter.requires_grad)
    ids = torch.randint(3, 30_000, (run["batch_size"], run["sequence_length"]), device="cuda")
    torch.cuda.empty_cache()
    loaded = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(steps):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    free, total = torch.cuda.mem_get_info()
    return {
        **run,
        "loaded_bytes": loaded,
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
        "device_bytes": total - free,
        "gpu": torch.cuda.get_device_name(),
        "gpu_total_bytes": torch.cuda.get_device_properties(0).total_memory,
        "software": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", metavar="JSON", help="measure this run, in this process")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="which shapes, with commas between")
    parser.add_argument("--list", action="store_true", help="print the runs and measure nothing")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(json.loads(arguments.one))))
        return
    for run in runs():
        if run["shape"] not in arguments.shapes.split(","):
            continue
        if arguments.list:
            print(json.dumps(run))
            continue
        command = [sys.executable, __file__, "--one", json.dumps(run)]
        done = subprocess.run(command, capture_output=True, text=True)
        failed = {**run, "failed": "oom" if "OutOfMemory" in done.stderr else done.stderr.strip()[-200:]}
        print(done.stdout.strip() or json.dumps(failed), flush=True)


if __name__ == "__main__":
    main()
