"""What Axolotl's schema refuses of an adapter (axolotl 0.18.0: utils/schemas/peft.py, validation.py, enums.py)."""

from __future__ import annotations

from estimator.errors import UnsupportedError, UsageError
from estimator.request.trainers.keys import Keys

_KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel")
_RL = ("dpo", "gdpo", "grpo", "ipo", "orpo", "kto", "simpo", "ebft")


def refuse(keys: Keys, adapter: str) -> None:
    """Raises UsageError for what Axolotl refuses, UnsupportedError for modules of its own."""
    if keys.flag("llama4_linearized_experts"):
        what = "llama4_linearized_experts turns experts into modules of Axolotl's own: not counted."
        raise UnsupportedError(what, where=f"llama4_linearized_experts in {keys.where}", way_out="leave it out")
    values = keys.values
    four, eight = keys.flag("load_in_4bit"), keys.flag("load_in_8bit")
    kernel = next((name for name in _KERNELS if keys.flag(name)), "")
    faults = (
        (
            adapter == "qlora" and eight,
            "load_in_8bit",
            "Axolotl refuses load_in_8bit with adapter: qlora",
            "set load_in_8bit: false",
        ),
        (
            adapter == "qlora" and values.get("gptq"),
            "gptq",
            "Axolotl refuses gptq with adapter: qlora",
            "set adapter: lora",
        ),
        (
            adapter == "qlora" and not four,
            "load_in_4bit",
            "Axolotl refuses adapter: qlora without load_in_4bit",
            "set load_in_4bit: true",
        ),
        (
            values.get("gradient_accumulation_steps") and values.get("batch_size"),
            "batch_size",
            "Axolotl refuses batch_size beside gradient_accumulation_steps",
            "leave out batch_size",
        ),
        (
            keys.flag("lora_target_linear") and keys.flag("quantize_moe_experts"),
            "lora_target_linear",
            "Axolotl refuses lora_target_linear with quantize_moe_experts",
            "name lora_target_modules",
        ),
        (
            values.get("tokens") and not values.get("lora_modules_to_save"),
            "tokens",
            "Axolotl refuses tokens without the embeddings in lora_modules_to_save",
            "set lora_modules_to_save: [embed_tokens, lm_head]",
        ),
        (
            values.get("lora_target_parameters") and values.get("lora_dropout"),
            "lora_dropout",
            "Axolotl refuses lora_dropout beside lora_target_parameters",
            "set lora_dropout: 0",
        ),
        (
            values.get("unfrozen_parameters") and values.get("peft_layers_to_transform"),
            "unfrozen_parameters",
            "Axolotl refuses unfrozen_parameters beside peft_layers_to_transform",
            "leave one of them out",
        ),
        (
            kernel and ((adapter == "lora" and eight) or keys.flag("trust_remote_code")),
            kernel,
            "Axolotl refuses its LoRA kernels with load_in_8bit and with trust_remote_code",
            "turn lora_mlp_kernel, lora_qkv_kernel and lora_o_kernel off",
        ),
        (
            values.get("model_quantization_config") and (four or eight),
            "model_quantization_config",
            "Axolotl refuses model_quantization_config with load_in_4bit or load_in_8bit",
            "leave out one of them",
        ),
        (
            values.get("rl") and values.get("rl") not in _RL,
            "rl",
            f"Axolotl knows no rl: {str(values.get('rl'))[:40]}",
            f"set one of {', '.join(_RL)}",
        ),
    )
    for broken, key, what, way_out in faults:
        if broken:
            raise UsageError(f"{what}.", where=f"{key} in {keys.where}", way_out=way_out)
