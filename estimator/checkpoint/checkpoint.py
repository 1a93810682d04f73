"""A checkpoint's tensors, all files together."""

from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import repeat
from operator import attrgetter
from typing import NamedTuple

from estimator.source.stack import Kind, Stack, gathered, parts_of

_OFFSETS = attrgetter("offsets")


class Tensor(NamedTuple):
    """A tensor that a header declares."""

    name: str  # as stored in the file
    dtype: str  # safetensors' name
    shape: tuple[int, ...]  # as stored
    file: str  # path of the file that holds it
    offsets: tuple[int, int] = (0, 0)  # bytes within the file's data


class Tensors(Mapping[str, Tensor]):
    """Tensors by stored name, in the order of files and data; taken apart one by one when one is asked for."""

    def __init__(self, stacks: Iterable[Stack]) -> None:
        self.stacks = tuple(stacks)

    @cached_property
    def _each(self) -> dict[str, Tensor]:
        files: dict[str, list[Tensor]] = {}
        for stack in self.stacks:
            files.setdefault(stack.file, []).extend(_apart(stack))
        return {tensor.name: tensor for tensors in files.values() for tensor in sorted(tensors, key=_OFFSETS)}

    def __getitem__(self, name: str) -> Tensor:
        return self._each[name]

    def items(self) -> ItemsView[str, Tensor]:
        return self._each.items()

    def __iter__(self) -> Iterator[str]:
        return iter(self._each)

    def __len__(self) -> int:
        return sum(len(stack.indices) for stack in self.stacks)


def _apart(stack: Stack) -> Iterator[Tensor]:
    dtype, shape, size = stack.kind
    offsets = [(begin, begin + size) for begin in stack.begins]
    values = zip(stack.names(), repeat(dtype), repeat(shape), repeat(stack.file), offsets)
    return map(tuple.__new__, repeat(Tensor), values)


def alone(tensor: Tensor) -> Stack:
    """A tensor as a stack of its own."""
    name, dtype, shape, file, (begin, end) = tensor
    return Stack("", name, ("",), Kind(dtype, shape, end - begin), (begin,), file)


def stacks_of(tensors: Mapping[str, Tensor]) -> Sequence[Stack]:
    """The tensors in stacks, each where its first one is."""
    if isinstance(tensors, Tensors):
        return tensors.stacks
    files: dict[str, list[Tensor]] = {}
    for tensor in tensors.values():
        files.setdefault(tensor.file, []).append(tensor)
    return [stack for file, each in files.items() for stack in _stacked(each, file)]


def _stacked(tensors: Iterable[Tensor], file: str) -> Sequence[Stack]:
    rests: dict[str, tuple[str, Kind]] = {}
    rows = []
    for name, dtype, shape, _, (begin, end) in tensors:
        before, index, after = parts_of(name)
        rest = f"{dtype} {shape} {end - begin} {after}"
        rests.setdefault(rest, (after, Kind(dtype, shape, end - begin)))
        rows.append((before, index, rest, begin))
    return gathered(rows, rests, file)


class CheckedFile(NamedTuple):
    """A safetensors file: what its header promises beside what it is."""

    path: str
    expected_bytes: int | None  # 8 + header + data, as the header promises
    actual_bytes: int | None  # of the real file
    dtypes: Mapping[str, int]  # dtype -> number of tensors
    metadata: Mapping[str, str]  # the header's __metadata__
    data_start: int | None = None  # byte at which the data begins
    local_path: str | None = None


class Checkpoint(NamedTuple):
    """All that is stored of a model, and whether its parts agree."""

    tensors: Mapping[str, Tensor]  # by stored name, in the order of files and data
    files: tuple[CheckedFile, ...]
    bytes: int  # of all tensors as stored
    index_total_size: int | None = None  # what the index claims
    index_total_parameters: int | None = None  # of the model, as the index claims; save_pretrained writes it
    complaints: tuple[str, ...] = ()  # index against headers, in words


def names_more_modules(tensors: Iterable[str], most: int) -> bool:
    """Whether the names of tensors lie in more than so many modules, the root and what merely holds others included."""
    modules = {""}
    for name in tensors:
        module = name.rpartition(".")[0]
        while module not in modules:
            modules.add(module)
            module = module.rpartition(".")[0]
        if len(modules) > most:
            return True
    return False
