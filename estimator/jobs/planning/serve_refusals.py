"""What vLLM 0.33.0 does not serve of an adapter.

Rules' source: vllm/lora/peft_helper.py (validate_legal, _validate_features), lora_model.py (check_unexpected_modules),
utils.py (parse_fine_tuned_lora_name), layers/logits_processor.py; vllm/config/model.py (verify_with_parallel_config).
"""

from __future__ import annotations

from collections.abc import Iterator

from estimator.notes import Note
from estimator.report.answer import Answer
from estimator.sizes.memory.fields import heads, text_config
from estimator.sizes.memory.vllm import MAX_VOCABULARY, RANKS, RELEASE, serves, wraps_embeddings

# Initialisations after which a saved adapter is a plain LoRA; the rest change the base's own weights.
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
_REFUSED_FIELDS = (
    ("use_dora", "dora", "DoRA"),
    ("lora_bias", "lora_bias", "a bias in lora_B (lora_bias)"),
    ("alora_invocation_tokens", "alora", "activated LoRA (aLoRA)"),
    ("layer_replication", "layer_replication", "layer_replication"),
    ("use_bdlora", "bdlora", "block-diagonal LoRA"),
    ("use_qalora", "qalora", "QALoRA"),
)
_HEADS = ("classifier", "score")


def refusals(answer: Answer, max_lora_rank: int, gpus: int = 1) -> tuple[Note, ...]:
    """Each reason with a code; () where vLLM takes the adapter."""
    return (*_of_the_class(answer, gpus), *_of_the_config(answer, max_lora_rank), *_of_the_modules(answer))


def _of_the_class(answer: Answer, gpus: int) -> Iterator[Note]:
    architecture = answer.tree.architecture
    if not serves(architecture):
        yield Note("not_served", f"vLLM {RELEASE} serves no LoRA on {architecture or 'this class'}.")
    vocabulary = _vocabulary(answer)
    if wraps_embeddings(architecture) and vocabulary > MAX_VOCABULARY:
        message = f"with LoRA the head may have {MAX_VOCABULARY:,} rows, and this one has {vocabulary:,}."
        yield Note("vocabulary", message)
    many = heads(text_config(answer.tree.config))
    if many > 1 and many % gpus:
        yield Note("gpus", f"{many} heads of attention cannot be shared out to {gpus} GPUs.")


def _vocabulary(answer: Answer) -> int:
    heads = (m for m in answer.tree.modules if m.name == answer.tree.output_embedding and m.parameters)
    return next((module.parameters[0].shape[0] for module in heads), 0)


def _of_the_config(answer: Answer, max_lora_rank: int) -> Iterator[Note]:
    config = answer.adaptation.config
    rank = max([config.get("r") or 0, *(config.get("rank_pattern") or {}).values()])
    if rank > max_lora_rank:
        fitting = next((allowed for allowed in RANKS if allowed >= rank), None)
        way_out = f"--max-lora-rank {fitting} takes it" if fitting else f"{RANKS[-1]} is the most that it takes"
        yield Note("rank", f"rank {rank} is over max_lora_rank {max_lora_rank}; {way_out}.")
    for field, code, words in _REFUSED_FIELDS:
        if config.get(field):
            yield Note(code, f"{words} is not supported.")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _PLAIN_STARTS:
        yield Note("initialisation", f"init_lora_weights={start!r} changes the base; convert it to a plain LoRA.")
    if (config.get("bias") or "none") != "none":
        yield Note("bias", f"bias={config['bias']!r}: an adapter's biases are not supported.")
    if others := [name for name in config.get("modules_to_save") or () if name not in _HEADS]:
        yield Note("modules_to_save", f"modules_to_save {', '.join(map(str, others))}: only a classifier's head is.")


def _of_the_modules(answer: Answer) -> Iterator[Note]:
    adaptation, tree = answer.adaptation, answer.tree
    parts = {tensor.part for tensor in adaptation.tensors}
    if "trainable_tokens" in parts:
        yield Note("trainable_tokens", "trained tokens (trainable_token_indices) are not supported.")
    along = [t.name for t in adaptation.tensors if t.part == "embeddings" and not t.name.endswith("base_layer.weight")]
    if along:
        yield Note("embeddings", f"{along[0]} is saved along; only lora_A and lora_B of a module are read.")
    embeddings = {tree.input_embedding, tree.output_embedding} - {None}
    adapted = [module for module in adaptation.modules if module.rank is not None]
    if not wraps_embeddings(tree.architecture) and not tree.is_composite:
        for name in sorted({module.name for module in adapted} & embeddings):
            yield Note("embedding_adapted", f"LoRA on {name} is not supported on {tree.architecture}.")
    for kind in sorted({module.kind for module in adapted} & {"Conv1d", "Conv2d", "Conv3d", "MultiheadAttention"}):
        yield Note("kind", f"LoRA on a {kind} is not supported.")
