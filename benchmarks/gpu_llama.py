"""A randomly initialised model of Llama-3.1-8B's shape, saved and verified on a GPU at bf16 and nf4.

    python benchmarks/gpu_llama.py [--folder FOLDER] [--layers 32] [--device cuda]

Writes 16 GB into FOLDER (a temporary one by default, gone afterwards), then runs `lora-size --verify` on it twice with
r=16 on all seven linear layers and prints both reports. Needs `pip install 'lora-size[verify]'` and a GPU of 24 GB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile

SHAPE = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "tie_word_embeddings": False,
}


def save(folder: str, layers: int, device: str) -> None:
    """Random weights, made once on the device in bfloat16; save_pretrained takes them off it shard by shard."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_default_dtype(torch.bfloat16)
    config = LlamaConfig(**SHAPE, num_hidden_layers=layers, dtype="bfloat16")
    with torch.device(device):
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder, max_shard_size="2GB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu", "meta"))
    parser.add_argument("--only-save", action="store_true", help="write the model into --folder and stop")
    options = parser.parse_args()
    if options.only_save:
        save(options.folder, options.layers, "cuda" if options.device == "cuda" else "cpu")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        return verified(options.folder or temporary, options.layers, options.device)


def verified(folder: str, layers: int, device: str) -> int:
    """The worst exit code. Each step is a process of its own: none holds memory that the next one needs."""
    saving = [sys.executable, __file__, "--only-save", "--folder", folder, "--layers", str(layers), "--device", device]
    subprocess.run(saving, check=True)
    codes = []
    for precision in ("bf16", "nf4"):
        command = [sys.executable, "-m", "estimator", "--model", folder, "--r", "16", "--targets", "qkvogud"]
        command += ["--base-precision", precision, "--verify", "--device", device]
        command += [] if device == "meta" else ["--train-step"]
        print(f"== {precision}", flush=True)
        codes.append(subprocess.run(command).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
