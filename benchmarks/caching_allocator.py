"""What torch's caching allocator reserves for a sequence of allocations (CUDACachingAllocator.cpp, torch 2.13).

Sizes are rounded up to 512 bytes. Up to 1 MiB comes from segments of 2 MiB, up to 10 MiB from segments of 20 MiB, more
from a segment of its own, rounded up to 2 MiB. The smallest free block that is large enough is taken; what is left of
it becomes a block of its own, above 1 MiB for large ones. Neighbours that are free join.
"""

from __future__ import annotations

import bisect
from itertools import count

_MIB = 2**20


class _Block:
    __slots__ = ("after", "before", "free", "order", "segment", "size", "small")

    def __init__(self, size, small, segment):
        self.size, self.small, self.segment = size, small, segment
        self.before = self.after = None
        self.free, self.order = False, 0

    def key(self):
        return self.size, self.segment, self.order


class CachingAllocator:
    """`reserved` and its peak, in bytes, as `allocate` and `release` are called with keys of the caller's choice."""

    def __init__(self):
        self.reserved = self.peak = 0
        self._pools = {True: [], False: []}
        self._used = {}
        self._numbers = count()

    def allocate(self, key, size):
        size = max(512, -(-size // 512) * 512)
        small = size <= _MIB
        pool = self._pools[small]
        place = bisect.bisect_left(pool, (size, -1, -1), key=_Block.key)
        block = pool.pop(place) if place < len(pool) else self._segment(size, small)
        block.free = False
        rest = block.size - size
        if rest >= 512 if small else rest > _MIB:
            self._split(block, size)
        self._used[key] = block

    def release(self, key):
        block = self._used.pop(key, None)
        if block is None:
            return
        for side, other_side in (("before", "after"), ("after", "before")):
            other = getattr(block, side)
            if other is not None and other.free:
                self._pools[other.small].remove(other)
                block.size += other.size
                setattr(block, side, getattr(other, side))
                if getattr(other, side) is not None:
                    setattr(getattr(other, side), other_side, block)
        self._put(block)

    def _segment(self, size, small):
        whole = 2 * _MIB if small else 20 * _MIB if size < 10 * _MIB else -(-size // (2 * _MIB)) * 2 * _MIB
        self.reserved += whole
        self.peak = max(self.peak, self.reserved)
        return _Block(whole, small, next(self._numbers))

    def _split(self, block, size):
        rest = _Block(block.size - size, block.small, block.segment)
        rest.before, rest.after = block, block.after
        if block.after is not None:
            block.after.before = rest
        block.after, block.size = rest, size
        self._put(rest)

    def _put(self, block):
        block.free, block.order = True, next(self._numbers)
        bisect.insort(self._pools[block.small], block, key=_Block.key)
