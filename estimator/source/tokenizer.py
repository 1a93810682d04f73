"""How many tokens a tokenizer has, from its files: `len(tokenizer)` without loading it."""

from __future__ import annotations

import json
import os
from typing import Any

from estimator.errors import LoraSizeError, MalformedConfigError, NotFoundError

MAX_TOKENIZER_BYTES = 200_000_000
_WAY_OUT = "give the number itself with --vocab-size"


def vocabulary_size(path: str) -> int:
    """`len(tokenizer)` of a local folder or tokenizer.json: vocabulary and added tokens, each once.

    Rule: transformers 5.23.0, tokenization_utils_tokenizers.py (`__len__`), get_vocab_size(with_added_tokens=True).
    Raises NotFoundError where no file says it, MalformedConfigError where one can't be read.
    """
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    if not os.path.exists(path):
        raise NotFoundError(f"there is no tokenizer at {path}.", where="--tokenizer", way_out=_WAY_OUT)
    for name, count in _COUNTS.items():
        file = os.path.join(folder, name)
        if os.path.isfile(file):
            tokens = count(file)
            return len(tokens | _added(folder))
    raise NotFoundError(f"{path} holds none of {', '.join(_COUNTS)}.", where="--tokenizer", way_out=_WAY_OUT)


def _read(file: str) -> bytes:
    if os.path.getsize(file) > MAX_TOKENIZER_BYTES:
        raise _odd(file, f"it has {os.path.getsize(file):,} bytes")
    with open(file, "rb") as opened:
        return opened.read()


def _odd(file: str, reason: object) -> LoraSizeError:
    return MalformedConfigError(f"{os.path.basename(file)} can't be read: {reason}.", where=file, way_out=_WAY_OUT)


def _json(file: str) -> Any:
    try:
        return json.loads(_read(file))
    except (ValueError, RecursionError, OSError) as error:
        raise _odd(file, error) from error


def _of_tokenizer_json(file: str) -> set[str]:
    try:
        described = _json(file)
        vocab = described["model"]["vocab"]
        words = vocab if isinstance(vocab, dict) else (piece[0] for piece in vocab)
        return {*words, *(token["content"] for token in described.get("added_tokens") or ())}
    except (KeyError, TypeError, IndexError) as error:
        raise _odd(file, f"it has no {error}") from error


def _of_vocab_json(file: str) -> set[str]:
    vocab = _json(file)
    if not isinstance(vocab, dict):
        raise _odd(file, "it is no object")
    return set(vocab)


def _of_vocab_txt(file: str) -> set[str]:
    return {line.rstrip("\n") for line in _read(file).decode("utf-8", "replace").splitlines() if line}


_COUNTS = {"tokenizer.json": _of_tokenizer_json, "vocab.json": _of_vocab_json, "vocab.txt": _of_vocab_txt}


def _added(folder: str) -> set[str]:
    """Tokens of added_tokens.json and of tokenizer_config.json's added_tokens_decoder."""
    added: set[str] = set()
    file = os.path.join(folder, "added_tokens.json")
    if os.path.isfile(file):
        added |= _of_vocab_json(file)
    file = os.path.join(folder, "tokenizer_config.json")
    if os.path.isfile(file):
        decoder = _json(file).get("added_tokens_decoder")
        added |= {
            token["content"] for token in (decoder or {}).values() if isinstance(token, dict) and "content" in token
        }
    return added
