"""Bytes that live during a real training step, counted on fake tensors: no GPU, no memory, real model and PEFT code.

    python benchmarks/step_truth.py '{"shape": "llama-8b", "batch_size": 1, ...}' ... > peaks.jsonl

transformers builds the model, PEFT adapts it, autograd runs forward, back and an AdamW step under FakeTensorMode;
a dispatch mode counts each storage from the operation that makes it until it is gone: what max_memory_allocated would
show, but for workspaces inside kernels. `benchmarks/caching_allocator.py` says what would be reserved. Stand-ins, with
what the CUDA kernels keep: flash attention (query, key, value, output, a float32 a head), dropout (a byte an element),
bitsandbytes' 4-bit matrices (unpacked while they are used). Needs torch, transformers, peft and bitsandbytes.
"""

from __future__ import annotations

import contextlib
import json
import sys
import weakref

import torch
from caching_allocator import CachingAllocator
from step_shapes import FUSED, OUTPUTS, SHAPES
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_AUTOCAST = torch.is_autocast_enabled


class Tracker(TorchDispatchMode):
    """Bytes of storages that live, and the most in each phase."""

    def __init__(self):
        super().__init__()
        self.now, self.phase, self.peaks = 0, "forward", {}
        self.allocator = CachingAllocator()
        self._live = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.index_put.default:  # an index walked back: in place, but of fakes
            return args[0]
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                self.see(leaf)
        return out

    def see(self, tensor):
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        size = -(-storage.nbytes() // 512) * 512
        self.now += size
        self.allocator.allocate(key, size)
        self._live[key] = weakref.ref(storage, lambda _: self._gone(key, size))
        self.peaks[self.phase] = max(self.peaks.get(self.phase, 0), self.now)

    def _gone(self, key, size):
        del self._live[key]
        self.now -= size
        self.allocator.release(key)


class Flash(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value):
        out = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:3], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx, gradient):
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def flash_attention(module, query, key, value, attention_mask, **_):
    heads = [tensor.transpose(1, 2) for tensor in (query, key, value)]
    if query.dtype == torch.float32:
        heads = [tensor.to(torch.bfloat16) for tensor in heads]
    return Flash.apply(*heads), None


def falcon_flash(model):
    """Falcon chooses its attention by class, and hands over heads that are turned already."""
    from transformers.models.falcon import modeling_falcon

    modeling_falcon._flash_attention_forward = lambda query, key, value, *_, **__: Flash.apply(query, key, value)
    model.config._attn_implementation = "flash_attention_2"
    for module in model.modules():
        if type(module) is modeling_falcon.FalconAttention:
            module.__class__ = modeling_falcon.FalconFlashAttention2
            module._flash_attn_uses_top_left_mask = False


class Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(torch.empty(x.shape, dtype=torch.bool))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, gradient):
        return torch.empty_like(gradient)


class Unpacked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, shape, bias):
        ctx.shape = shape
        return torch.nn.functional.linear(x, x.new_empty(shape), bias)

    @staticmethod
    def backward(ctx, gradient):
        return torch.matmul(gradient, gradient.new_empty(ctx.shape)), None, None


def pack(model):
    """The model with every linear layer but the head in nf4, as far as shapes go."""
    import bitsandbytes

    class Packed(bitsandbytes.nn.Linear4bit):
        def __init__(self, linear):
            torch.nn.Module.__init__(self)
            self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
            elements = linear.weight.numel()
            self.weight = torch.nn.Parameter(torch.empty((elements // 2, 1), dtype=torch.uint8), requires_grad=False)
            self.weight.compress_statistics, self.weight.quant_type = False, "nf4"
            self.register_buffer("absmax", torch.empty(elements // 64, dtype=torch.float32))
            self.compute_dtype = torch.bfloat16

        def forward(self, x):
            bias = None if self.bias is None else self.bias.to(self.compute_dtype)
            return Unpacked.apply(x.to(self.compute_dtype), (self.out_features, self.in_features), bias).to(x.dtype)

    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings():
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, Packed(module))
    model.is_loaded_in_4bit = True
    return model


def build(run):
    """The adapted model on the meta device."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

    AttentionInterface.register("counted_flash", flash_attention)
    fields = dict(SHAPES[run["shape"]])
    if "n_positions" not in fields:
        fields = {"max_position_embeddings": 32_768} | fields
    kind = fields.pop("model_type")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(kind, **fields), dtype=torch.bfloat16, attn_implementation="eager"
        )
        if run["attention"] == "flash":
            falcon_flash(model) if kind == "falcon" else setattr(model.config, "_attn_implementation", "counted_flash")
        if run["precision"] != "bf16":
            model = pack(model)
        checkpointing = run["gradient_checkpointing"]
        if run["precision"] == "nf4-kbit":
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
        elif checkpointing:
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
        return get_peft_model(
            model,
            LoraConfig(
                r=run["r"],
                target_modules=targets(kind, run["targets"]),
                target_parameters=run.get("parameters"),
                layers_to_transform=run.get("layers"),
                lora_dropout=run["dropout"],
                use_dora=run.get("dora", False),
            ),
        ).train()


def targets(kind, name):
    query_value = FUSED.get(kind, ["q_proj", "v_proj"])
    all_four = [*FUSED.get(kind, ["q_proj", "k_proj", "v_proj"]), *OUTPUTS.get(kind, ["o_proj"])]
    return {"none": [], "qv": query_value, "qkvo": all_four, "all-linear": "all-linear"}[name]


def materialise(model):
    """Fake tensors in place of those on the meta device; tied ones stay tied."""
    known = {}
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, old in store.items():
                if old is not None and id(old) not in known:
                    new = torch.empty(old.shape, dtype=old.dtype)
                    is_parameter = isinstance(old, torch.nn.Parameter)
                    known[id(old)] = torch.nn.Parameter(new, old.requires_grad) if is_parameter else new, old
                if old is not None:
                    store[name] = known[id(old)][0]


def measure(run):
    """The run with `resident_bytes` and, on top of them in the second step, the peak of each phase and of reserved."""
    model = build(run)
    autocast = run["mixed_precision"] == "bf16"
    torch.nn.functional.dropout = lambda x, p=0.5, training=True, inplace=False: Dropout.apply(x) if p else x
    torch.is_autocast_enabled = lambda device=None: _AUTOCAST(device) if device else autocast  # PEFT names no device
    with FakeTensorMode(allow_non_fake_inputs=True):
        materialise(model)
        with (tracker := Tracker()):
            for tensor in (*model.parameters(), *model.buffers()):
                tracker.see(tensor)
            resident = tracker.now
            for _ in range(2):
                tracker.peaks.clear()
                states = tracker.now - resident
                step(model, run, tracker, autocast)
    peaks = {name: size - resident for name, size in tracker.peaks.items()}
    return {
        **run,
        "resident_bytes": resident,
        "state_bytes": states,
        "kept_bytes": model.kept_bytes - resident,
        "peak_bytes": peaks,
        "reserved_bytes": tracker.allocator.peak - resident,
    }


def step(model, run, tracker, autocast):
    if not hasattr(model, "optimizer"):
        model.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], foreach=True)
    ids = torch.empty((run["batch_size"], run["sequence_length"]), dtype=torch.int64)
    tracker.phase = "forward"
    with torch.autocast("cpu", dtype=torch.bfloat16) if autocast else contextlib.nullcontext():
        loss = model(input_ids=ids, labels=torch.empty_like(ids), use_cache=not run["gradient_checkpointing"]).loss
    model.kept_bytes = tracker.now
    tracker.phase = "backward"
    loss.backward()
    tracker.phase = "step"
    model.optimizer.step()
    model.optimizer.zero_grad()


if __name__ == "__main__":
    for text in sys.argv[1:]:
        print(json.dumps(measure(json.loads(text))), flush=True)
