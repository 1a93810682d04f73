"""One file per trainer: its keys, its defaults, and what they make of LoRA. Each has `read(keys) -> TrainingConfig`."""
