"""Bytes of tensors that live while a real model takes a step on the CPU, its weights and input apart."""

from __future__ import annotations

import gc
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LivingBytes(TorchDispatchMode):
    def __init__(self, model, tokens) -> None:
        super().__init__()
        self._model, self._tokens = model, tokens
        self._now = self._most = 0
        self._live = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers(), tokens)}
        self._seen: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf.untyped_storage())
        return out

    def _see(self, storage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._live:
            return
        self._live.add(key)
        self._now += size
        self._most = max(self._most, self._now)
        self._seen[key] = weakref.ref(storage, lambda _: self._gone(key, size))

    def _gone(self, key: int, size: int) -> None:
        self._live.discard(key)
        self._now -= size

    def of_a_step(self, **options) -> tuple[int, int]:
        """Bytes kept between the passes, and the most in both."""
        with self:
            loss = self._model(input_ids=self._tokens, labels=self._tokens, **options).loss
            gc.collect()
            kept = self._now
            loss.backward()
        return kept, self._most
