"""What the caching allocator reserves where batches differ in length: by its own rules, on steps of a Llama-like model.

    python benchmarks/ragged_batches.py

Prints peak and reserved bytes of 60 steps whose lengths are all the longest, drawn evenly, or log-normally around a
sixth of the longest. Needs nothing but Python.
"""

from __future__ import annotations

import math
import random

from caching_allocator import CachingAllocator

HIDDEN, INNER, KEY_VALUE, VOCABULARY = 4096, 11008, 512, 64000
STEPS = 60


class Device:
    def __init__(self) -> None:
        self.allocator = CachingAllocator()
        self.now = self.peak = self._count = 0
        self._sizes: dict[int, int] = {}

    def new(self, size: int) -> int:
        self._count += 1
        self.allocator.allocate(self._count, size)
        self._sizes[self._count] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        return self._count

    def free(self, *keys: int) -> None:
        for key in keys:
            self.allocator.release(key)
            self.now -= self._sizes.pop(key)


def forward(device: Device, tokens: int) -> tuple[list[int], int]:
    """One layer: what autograd keeps, and the output."""

    def new(elements: int, width: int = 2) -> int:
        return device.new(tokens * elements * width)

    kept = []
    for inside in (_attention, _mlp):
        wide, square = new(HIDDEN, 4), new(HIDDEN, 4)
        device.free(square)
        even = new(HIDDEN, 4)
        narrow = new(HIDDEN)
        device.free(even)
        more, branch = inside(new)
        device.free(narrow)
        out = new(HIDDEN)
        device.free(branch)
        kept += [wide, *more, out]
    return kept[:-1], kept[-1]


def _attention(new) -> tuple[list[int], int]:
    copy = new(HIDDEN, 4)  # LoRA's, in float32
    return [copy, new(HIDDEN), new(KEY_VALUE), new(KEY_VALUE), new(HIDDEN)], new(HIDDEN)


def _mlp(new) -> tuple[list[int], int]:
    return [new(INNER), new(INNER), new(INNER)], new(HIDDEN)


def step(device: Device, tokens: int, layers: int, *, checkpointed: bool) -> None:
    inputs, kept = [device.new(tokens * HIDDEN * 2)], []
    for _ in range(layers):
        saved, out = forward(device, tokens)
        inputs.append(out)
        if checkpointed:
            device.free(*saved)
        else:
            kept.append(saved)
    gradient = _loss(device, tokens)
    for _ in range(layers):
        device.free(inputs.pop())
        if checkpointed:
            saved, out = forward(device, tokens)
            device.free(out)
        else:
            saved = kept.pop()
        inner = [device.new(tokens * INNER * 2) for _ in range(3)]
        wide = device.new(tokens * HIDDEN * 4)
        device.free(*inner)
        passed = device.new(tokens * HIDDEN * 2)
        device.free(wide, *saved, gradient)
        gradient = passed
    device.free(inputs.pop(), gradient)


def _loss(device: Device, tokens: int) -> int:
    logits, wide, chances = (device.new(tokens * VOCABULARY * width) for width in (2, 4, 4))
    device.free(wide)
    back = device.new(tokens * VOCABULARY * 4)
    device.free(chances)
    narrow = device.new(tokens * VOCABULARY * 2)
    device.free(back, logits)
    gradient = device.new(tokens * HIDDEN * 2)
    device.free(narrow)
    return gradient


DRAWS = {
    "longest": lambda longest: longest,
    "even": lambda longest: random.randint(32, longest),
    "log-normal": lambda longest: max(32, min(longest, int(random.lognormvariate(math.log(longest / 6), 1)))),
}


def main() -> None:
    for checkpointed, layers in ((True, 32), (False, 12)):
        for longest in (512, 2048, 8192):
            for name, draw in DRAWS.items():
                for seed in range(1 if name == "longest" else 4):
                    random.seed(seed)
                    device = Device()
                    for _ in range(STEPS):
                        step(device, draw(longest), layers, checkpointed=checkpointed)
                    reserved = device.allocator.peak / device.peak
                    words = "checkpointed" if checkpointed else "whole"
                    print(f"{words} {longest} {name}: peak {device.peak / 1e9:.2f} GB, reserved {reserved:.2f} of it")


if __name__ == "__main__":
    main()
