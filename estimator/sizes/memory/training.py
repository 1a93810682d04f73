"""A training run as far as memory depends on it; names and defaults are those of TrainingArguments and accelerate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

from estimator.sizes.memory.optimizers import Trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """What releases and kernels decide; the defaults are transformers 5.23, PEFT 0.21.2 and bitsandbytes 0.50."""

    fused_norms: bool = False  # as liger-kernel and Unsloth have them
    fused_mlp: bool = False  # the same of the gated product
    # One of torch's in place of those that transformers writes in Python (litgpt/model.py, GptNeoxMLP)
    fused_activation: bool = False
    fused_scans: bool = False  # mamba-ssm's and flash-linear-attention's, in place of torch
    in_place_loss: bool = False  # a standard or chunked loss whose kernel writes the gradient over the logits
    # Logits are copied to float32, and named until the next step's (lightning 2, fabric's Precision.convert_output)
    copies_logits: bool = False
    names_last_step: bool = False  # logits and loss of the step before live until then (litgpt, finetune/lora.py, fit)
    own_head: bool = False  # never tied to the embeddings (litgpt); in 4 bits as well (lightning 2)
    unpacks_as_half: bool = False  # and then to the dtype that is asked for (lightning 2, _Linear4bit.quantize)
    # A 4-bit base gets embeddings that want a gradient nobody uses, beside the old ones (litgpt since 2024-10)
    renews_embeddings: bool = False
    shifts_logits: bool = False  # transformers before 4.50 (loss_utils.py): a copy without the last token
    offloads_inputs: bool = False  # those of checkpointed layers lie on the host until they are run again (Unsloth)
    # Outside checkpointed layers a forward pass copies keys and values to a cache; transformers' Trainer turns it off
    # (5.23, trainer.py, args.use_cache), a loop of one's own does not
    fills_cache: bool = False
    names_logits: bool = False  # a loop that names the model's outputs holds their logits until the next step's
    drops_logits: bool = False  # transformers before 4.46: the float32 logits take the name of those in 16 bits
    # bitsandbytes before 0.43.2 (autograd/_functions.py, MatMul4Bit): as long as the loss is named
    keeps_packed_inputs: bool = False
    narrow_head: bool = (
        False  # trl (peft_module_casting_to_bf16) casts embeddings and head back after k-bit preparation
    )
    views_fused_value: bool = False  # value is a view of what one matrix made of query, key and value
    fuses_heads: bool = False  # one matrix and one dropout make them; shared keys and values are copied (litgpt)
    caps_whole_scores: bool = False  # no kernel where attention's scores are capped (litgpt)
    # Before GradientCheckpointingLayer (transformers 4.53) layers were checkpointed around FSDP, not inside it
    checkpoints_around_fsdp: bool = False
    # Embeddings' output wants gradients without checkpointing as well (Unsloth's prepare_model_for_kbit_training)
    wants_inputs: bool = False
    loops_experts: bool = False  # transformers 4 kept experts one by one, and quantised them
    # CUDA's softmax walked back makes gradient times output first (SoftMax.cu, softmax_backward_cuda_out)
    multiplies_softmax: bool = True
    narrow_softmax: bool = False  # eager attention's, where autocast would take float32 and its class names a dtype
    wide_routing: bool = False  # experts' shares are float32, and with them what they are multiplied with
    names_all: bool = False  # what goes in and out of a layer's parts is named by its code up to the layer's end


TODAY = Software()
LITGPT = Software(
    fused_activation=True,
    copies_logits=True,
    names_last_step=True,
    own_head=True,
    unpacks_as_half=True,
    renews_embeddings=True,
    fills_cache=True,  # none, but keys and values are copied as for one
    views_fused_value=True,
    fuses_heads=True,
    caps_whole_scores=True,
)
UNSLOTH = Software(fused_norms=True, fused_mlp=True, in_place_loss=True, wants_inputs=True, offloads_inputs=True)
# Floors and ceilings allow for these
LEAST = Software(
    fused_norms=True,
    fused_mlp=True,
    fused_activation=True,
    fused_scans=True,
    in_place_loss=True,
    narrow_softmax=True,
    drops_logits=True,
    loops_experts=True,
    narrow_head=True,
    multiplies_softmax=False,
)
MOST = Software(
    shifts_logits=True,
    names_logits=True,
    fills_cache=True,
    keeps_packed_inputs=True,
    views_fused_value=True,
    checkpoints_around_fsdp=True,
    wants_inputs=True,
    wide_routing=True,
    names_all=True,
)
MOST_OF_LITGPT = replace(LITGPT, keeps_packed_inputs=True, names_all=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    batch_size: int = 8  # examples on each device: per_device_train_batch_size
    gradient_accumulation: int = 1
    sequence_length: int = 1024  # tokens of the longest example: SFTConfig.max_length
    packing: bool = False  # every example is filled up to sequence_length
    mixed_precision: str = "no"  # "no" | "bf16" | "fp16": autocast around the forward pass
    gradient_checkpointing: bool = False
    attention: str = "sdpa"  # "eager" | "sdpa" | "flash_attention_2"
    # "standard" | "in_place" (the gradient is written over the logits) | "fused" (logits never whole) | "chunked"
    # (log-softmax a piece at a time) | "in_rows" (TRL's SFT: logits a piece at a time)
    loss: str = "standard"
    optimizer: str = "adamw_torch"
    gpus: int = 1
    strategy: str = "ddp"  # "ddp" | "zero1" | "zero2" | "zero3" | "fsdp"

    offloads: tuple[str, ...] = ()  # "weights" | "optimizer": on the host, and on the GPU while they are used
    software: Software | None = None  # that of the middle; None: what the options imply
    compares: int = 0  # sequences of an example: 2, chosen and rejected, or 1 (KTO)
    beside: str | None = None  # logits held beside theirs: "reference", of each; "chosen", a second loss on those
    drops_outputs: bool = False  # the model's outputs are surely let go before the step is walked back

    @property
    def tokens(self) -> int:
        return self.batch_size * self.sequence_length


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What PEFT adds to the base, as far as memory depends on it."""

    ranks: dict[str, int]  # module name -> rank
    parameters: int  # trainable
    parameter_bytes: int  # of the trainable parameters, as they train
    base_bytes: int = 0  # of these, what is the base's own
    behind_bytes: int = 0  # of these, what stands behind the layers: its gradients come first
    before_bytes: int = 0  # and what stands before them: its gradients come last
    frozen: tuple[Trained, ...] = ()  # what is added and does not train
    still: frozenset[str] = frozenset()  # adapted modules of which nothing of LoRA's trains
    still_down: frozenset[str] = frozenset()  # modules whose lora_A is frozen
    still_up: frozenset[str] = frozenset()  # and whose lora_B is
    biased_up: frozenset[str] = frozenset()  # and whose lora_B has a bias that trains
    opened: frozenset[str] = frozenset()  # modules whose own weight trains, or a copy's
    biased: frozenset[str] = frozenset()  # modules whose bias does
    open_norms: frozenset[str] = frozenset()  # norms that train
    rows: frozenset[str] = frozenset()  # modules of which some rows train: each pass makes the weight anew
    width: int = 4  # bytes of an element of the LoRA weights
    dropout: float = 0.0
    dora: bool = False
    wrapped: Mapping[str, int] = field(default_factory=dict)  # module name -> elements of one expert's adapted weight
    trains_before: bool = False  # something before the layers, or of which nobody knows where it stands

    @property
    def added_bytes(self) -> int:
        """Of what lies beside the base, frozen parts included."""
        return self.parameter_bytes - self.base_bytes + sum(prod(p.shape) * p.width for p in self.frozen)

    @property
    def trained_modules(self) -> frozenset[str]:
        """Modules of which something trains."""
        return self.opened | self.biased | (self.ranks.keys() - self.still)

    def trains(self, name: str) -> bool:
        """Whether something of this module's, or of LoRA's on it, trains."""
        return name in self.opened or name in self.biased or (name in self.ranks and name not in self.still)
