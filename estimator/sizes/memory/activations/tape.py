"""Tensors that come and go while a part of a model runs forward and is walked back, as torch's autograd does it.

A tape is written once, operation by operation, and then played:

- A tensor lives until its last use, until the Python variable that names it goes (`hold`), and while autograd keeps it.
- An operation keeps what its derivative needs (torch 2.13, tools/autograd/derivatives.yaml), and only where its output
  needs a gradient.
- Walked back, it makes a gradient for each input that needs one, while its own gradient and what it kept still live; a
  second gradient of the same tensor is added in place (torch/csrc/autograd/input_buffer.cpp).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Tensor:
    """A storage: elements for each token, bytes of one, and the bytes of all; views are the same tensor."""

    __slots__ = ("elements", "last_use", "needs_grad", "size", "width")

    def __init__(self, elements: int, width: int, size: int, needs_grad: bool) -> None:
        self.elements = elements
        self.width = width
        self.size = size
        self.needs_grad = needs_grad
        self.last_use = -1


class Operation(NamedTuple):
    inputs: tuple[Tensor, ...]
    output: Tensor
    saved: tuple[Tensor, ...]
    keeps: int  # bytes that only autograd holds
    scratch: int  # bytes that live only while it runs, forward or back
    passes: bool  # the gradient of the output is that of each input: an addition, a view
    overwrites: bool  # the gradient of the input is written over the input, which was saved
    asks: bool  # its derivative needs a weight, or where elements went
    unwinds: int  # bytes that live only while it is walked back


class Played(NamedTuple):
    """Bytes beside the input, which is not counted."""

    kept: int  # by autograd between the passes
    named: int  # of these, and of the input, what lives as long as the graph is named
    keeps_input: bool  # the input is kept too
    forward: int  # most while running forward, the output included
    again: int  # most while it runs again under checkpointing: see `Tape.play`
    backward: int  # most while being walked back, with what is kept and the gradient of the output


class Tape:
    """A sequence of operations on tensors of so many tokens."""

    def __init__(self, tokens: int, *, names_all: bool = False) -> None:
        self.tokens = tokens
        self._names_all = names_all
        self._named_so_far: list[Tensor] = []
        self.operations: list[Operation] = []
        self.placed: set[str] = set()  # names of the matrices whose use is known
        self.named: dict[int, int] = {}  # id of a tensor -> bytes, of what a graph keeps by hand

    @contextmanager
    def seeing(self, tokens: int) -> Iterator[None]:
        """What is run inside sees so many tokens."""
        before, self.tokens = self.tokens, tokens
        yield
        self.tokens = before

    def input(self, elements: int, width: int, *, needs_grad: bool = True) -> Tensor:
        """A tensor that is there before."""
        return Tensor(elements, width, self.tokens * elements * width, needs_grad)

    def run(
        self,
        inputs: Iterable[Tensor],
        elements: int,
        width: int,
        *,
        saves: Iterable[Tensor] = (),
        saves_output: bool = False,
        keeps: int = 0,
        scratch: int = 0,
        passes: bool = False,
        overwrites: bool = False,
        trains: bool = False,
        asks: bool = False,
        unwinds: int = 0,
    ) -> Tensor:
        """The output of an operation. keeps, scratch, unwinds: bytes in all; trains: it has a weight that trains; asks:
        or one that its derivative needs."""
        inputs = tuple(inputs)
        needs_grad = trains or any(tensor.needs_grad for tensor in inputs)
        output = Tensor(elements, width, self.tokens * elements * width, needs_grad)
        saved = (*saves, *((output,) if saves_output else ())) if needs_grad else ()
        self.operations.append(
            Operation(inputs, output, saved, keeps if needs_grad else 0, scratch, passes, overwrites, asks, unwinds)
        )
        self.hold(output, *inputs)
        return output

    def hold(self, *tensors: Tensor) -> None:
        """Python variables name these up to here."""
        for tensor in tensors:
            tensor.last_use = len(self.operations) - 1

    def name(self, *tensors: Tensor) -> None:
        """Python variables may name these to the end: they do where everything is named."""
        self._named_so_far += tensors if self._names_all else ()

    def play(self, output: Tensor) -> Played:
        """Runs the operations forward and back. The output's own bytes count as the next part's, not as kept.

        Under checkpointing the operations run again once the walk back asks for the first tensor that was kept, weights
        included: the gradients behind it live by then. The run ends with the last tensor that is kept (torch 2.13,
        utils/checkpoint.py, early_stop).
        """
        self.hold(output, *self._named_so_far)
        made = {id(operation.output) for operation in self.operations}
        kept = {id(t): t.size for o in self.operations for t in o.saved if id(t) in made and t is not output}
        kept_bytes = sum(kept.values()) + sum(operation.keeps for operation in self.operations)
        given = any(id(t) not in made for o in self.operations for t in o.saved)
        last = max((i for i, o in enumerate(self.operations) if o.saved or o.keeps or o.asks), default=-1)
        ended = self.operations[last] if last >= 0 else None
        runs = ended is not None and (ended.keeps > 0 or ended.output in ended.saved)  # else inputs are all it keeps
        backward, pending = self._backward(output, kept, kept_bytes, last)
        return Played(
            kept_bytes,
            sum(self.named.values()),
            given,
            self._forward(kept, len(self.operations)),
            self._forward(kept, last + runs) + pending,
            backward,
        )

    def _forward(self, kept: dict[int, int], until: int) -> int:
        ends: dict[int, int] = {}
        for operation in self.operations:
            if id(operation.output) not in kept:
                last = operation.output.last_use
                ends[last] = ends.get(last, 0) + operation.output.size
        now = most = 0
        for index, operation in enumerate(self.operations[:until]):
            now += operation.output.size + operation.keeps
            most = max(most, now + operation.scratch)
            now -= ends.get(index, 0)
        return most

    def _backward(self, output: Tensor, kept: dict[int, int], kept_bytes: int, last: int) -> tuple[int, int]:
        """The most, and the gradients that live when operation `last` is walked back."""
        first_use: dict[int, int] = {}
        for index, operation in enumerate(self.operations):
            for tensor in operation.saved:
                first_use.setdefault(id(tensor), index)
        gradients = _Gradients(output)
        now = most = kept_bytes + output.size
        pending = output.size
        for index in range(len(self.operations) - 1, -1, -1):
            operation = self.operations[index]
            if index == last:
                pending = now - kept_bytes
            if not operation.output.needs_grad:
                continue
            made, freed = gradients.walk(operation)
            done = {id(tensor) for tensor in operation.saved if first_use[id(tensor)] == index}
            if operation.overwrites:  # what was saved lives on as the gradient
                done, made = set(), 0
            most = max(most, now + made + operation.scratch + operation.unwinds)
            now += made - freed - operation.keeps - sum(kept.get(key, 0) for key in done)
        return most, pending


class _Gradients:
    """Which gradients live; one may be that of several tensors."""

    def __init__(self, output: Tensor) -> None:
        self._of: dict[int, list[int]] = {id(output): [output.size, 1]}  # id of a tensor -> size, tensors that share it

    def walk(self, operation: Operation) -> tuple[int, int]:
        """Bytes made, and bytes freed after that."""
        own = self._of.pop(id(operation.output), None)
        if own is None:
            return 0, 0
        made = freed = 0
        for tensor in {id(t): t for t in operation.inputs if t.needs_grad}.values():
            shares = operation.passes and tensor.size == own[0]
            if id(tensor) in self._of:  # made where it is not there already, then added in place
                made, freed = (made, freed) if shares else (made + tensor.size, freed + tensor.size)
            elif shares:
                own[1] += 1
                self._of[id(tensor)] = own
            else:
                self._of[id(tensor)] = [tensor.size, 1]
                made += tensor.size
        own[1] -= 1
        return made, freed + (0 if own[1] else own[0])
