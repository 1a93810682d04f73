"""Small repositories for the stand-in Hub: files whose headers are real and whose data is never read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from estimator.dtypes import BITS

COMMIT, OLDER = "a" * 40, "c" * 40
Shapes = Mapping[str, tuple[str, tuple[int, ...]]]  # name -> dtype, shape


def header_of(tensors: Shapes, *, separators: tuple[str, str] = (",", ":"), metadata: bool = True) -> bytes:
    """The header as safetensors writes it, padded to a multiple of 8."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}} if metadata else {}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = prod(shape) * BITS[dtype] // 8
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries, separators=separators, ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)


def data_bytes(header: bytes) -> int:
    """Bytes of the data that a header promises."""
    ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
    return max(ends, default=0)


@dataclass(frozen=True)
class File:
    """A file by its first bytes and its size; what follows is zeros, and is sent only if somebody asks for it."""

    head: bytes
    size: int
    lfs: bool = False

    def part(self, first: int, last: int) -> bytes:
        last = min(last, self.size - 1)
        known = self.head[first : last + 1]
        return known + b"\0" * (last + 1 - first - len(known))


def text_file(text: bytes | str) -> File:
    """A small file, stored in git itself."""
    raw = text.encode() if isinstance(text, str) else text
    return File(raw, len(raw))


def weights_file(header: bytes, data: int | None = None) -> File:
    """A safetensors file of that header, with the data that it promises or `data` bytes instead."""
    head = len(header).to_bytes(8, "little") + header
    return File(head, len(head) + (data_bytes(header) if data is None else data), lfs=True)


def safetensors(tensors: Shapes) -> bytes:
    """A whole file of these tensors, all zeros."""
    file = weights_file(header_of(tensors))
    return file.part(0, file.size - 1)


@dataclass(frozen=True)
class Repo:
    id: str
    files: Mapping[str, File]
    commit: str = COMMIT
    private: bool = False  # only with the token
    gated: bool = False  # files only with the token
    endpoint: bool = True  # whether the metadata endpoint serves it
    older: Mapping[str, Mapping[str, File]] = field(default_factory=dict)  # other commits -> files
    branches: Mapping[str, str] = field(default_factory=dict)  # other branches, tags and pull requests -> commits

    def commit_of(self, revision: str) -> str:
        return self.commit if revision == "main" else self.branches.get(revision, revision)

    def at(self, revision: str) -> Mapping[str, File] | None:
        commit = self.commit_of(revision)
        return self.files if commit == self.commit else self.older.get(commit)

    @cached_property
    def metadata(self) -> dict[str, bytes]:
        """The metadata endpoint's answer by index path, as the Hub words it: compact, without the weight_map."""
        return {path: self._metadata(path) for path in self.files if path.endswith(".safetensors.index.json")}

    def _metadata(self, path: str) -> bytes:
        folder = path.rpartition("/")[0]
        index = json.loads(self.files[path].head)
        shards = dict.fromkeys(index["weight_map"].values())
        texts = []
        for shard in shards:
            file = self.files[f"{folder}/{shard}" if folder else shard]
            length = int.from_bytes(file.head[:8], "little")
            texts.append(json.dumps(shard).encode() + b":" + file.head[8 : 8 + length].rstrip(b" "))
        rest = json.dumps({"metadata": index.get("metadata", {})}, separators=(",", ":")).encode()
        return b'{"headers":{' + b",".join(texts) + b'},"index":' + rest + b"}"


CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "torch_dtype": "bfloat16",
}


def llama(layers: int, hidden: int, intermediate: int, vocab: int, kv: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors of a Llama."""
    tensors = {"model.embed_tokens.weight": ("BF16", (vocab, hidden)), "lm_head.weight": ("BF16", (vocab, hidden))}
    for layer in range(layers):
        own = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (intermediate, hidden),
            "mlp.up_proj": (intermediate, hidden),
            "mlp.down_proj": (hidden, intermediate),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }
        tensors |= {f"model.layers.{layer}.{name}.weight": ("BF16", shape) for name, shape in own.items()}
    return tensors | {"model.norm.weight": ("BF16", (hidden,))}


TINY = llama(2, 64, 160, 256, 32)


def sharded(tensors: Shapes, shards: int) -> dict[str, File]:
    """Weight files and their index, tensors dealt out in order."""
    names = list(tensors)
    files, weight_map = {}, {}
    for number in range(shards):
        path = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        mine = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        files[path] = weights_file(header_of({name: tensors[name] for name in mine}))
        weight_map |= dict.fromkeys(mine, path)
    total = sum(data_bytes(header_of({name: entry})) for name, entry in tensors.items())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    return files | {"model.safetensors.index.json": text_file(json.dumps(index, indent=2))}


def config_file(config: Mapping[str, object] = CONFIG) -> File:
    return text_file(json.dumps(config, indent=2))


def tiny_sharded(id_: str = "org/tiny", **more: object) -> Repo:
    """A small Llama in two shards."""
    extra = {"README.md": text_file("hello"), "tokenizer.json": text_file("{}")}
    return Repo(id_, {"config.json": config_file(), **sharded(TINY, 2), **extra}, **more)  # type: ignore[arg-type]


def tiny_single(id_: str = "org/single", **more: object) -> Repo:
    """The same in one file."""
    files = {"config.json": config_file(), "model.safetensors": weights_file(header_of(TINY))}
    return Repo(id_, files, **more)  # type: ignore[arg-type]
