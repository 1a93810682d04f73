"""How many tokens a tokenizer has, from its files: `len(tokenizer)` without loading it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from estimator.errors import LoraSizeError, MalformedConfigError, NotFoundError, OfflineError
from estimator.source.bounded_json import NotUsable, parse_json
from estimator.source.opening import read_at_most
from estimator.source.place import is_path
from estimator.source.plain import plain
from estimator.source.progress import patiently

MAX_TOKENIZER_BYTES = 64_000_000  # the largest published ones have some 35 million
_MAX_PARSED_BYTES = 300_000_000  # a vocabulary of 262,144 with its merges takes 280 million
_WAY_OUT = "give the number itself with --vocab-size"

Read = Callable[[str], bytes | None]  # a file of the tokenizer by its name; None where there is none
Source = tuple[Read, Callable[[], None], type[LoraSizeError]]  # how to keep what was read, and the error of nothing


def vocabulary_size(name: str, *, token: str | None = None, offline: bool = False, timeout: float = 60.0) -> int:
    """`len(tokenizer)` of a folder, a tokenizer.json or a repository of the Hub: each token once, added ones included.

    Rule: transformers 5.23.0, tokenization_utils_tokenizers.py (`__len__`), get_vocab_size(with_added_tokens=True).
    Raises NotFoundError where no file says it, MalformedConfigError where one can't be read, NetworkError, OfflineError
    and GatedError where the Hub does not give it within `timeout` seconds.
    """
    try:
        path = os.path.expanduser(name)
        read, keep, nothing = _beside(path) if os.path.exists(path) else _on_the_hub(name, token, offline, timeout)
        with patiently(f"reading the tokenizer {plain(name, 100)}"):
            for file, count in _COUNTS.items():
                if (text := read(file)) is not None:
                    size = len(count(file, text) | _added(read))
                    keep()
                    return size
    except LoraSizeError as error:
        way_out = error.way_out if error.way_out.endswith(_WAY_OUT) else f"{error.way_out}; or {_WAY_OUT}"
        raise type(error)(error.what, where=f"--tokenizer {plain(name, 100)}", way_out=way_out) from error
    what = f"{plain(name, 100)} holds none of {', '.join(_COUNTS)}{' here' if nothing is OfflineError else ''}."
    raise nothing(what, where=f"--tokenizer {plain(name, 100)}", way_out=_WAY_OUT)


def _beside(path: str) -> Source:
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."

    def read(name: str) -> bytes | None:
        try:
            text = read_at_most(os.path.join(folder, name), MAX_TOKENIZER_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _odd(name, error.strerror or type(error).__name__) from error
        if len(text) > MAX_TOKENIZER_BYTES:
            raise _odd(name, f"it has more than {MAX_TOKENIZER_BYTES:,} bytes")
        return text

    return read, lambda: None, NotFoundError


def _on_the_hub(repository: str, token: str | None, offline: bool, timeout: float) -> Source:
    if is_path(repository):
        what = f"there is no file or folder {plain(repository, 100)}."
        raise NotFoundError(what, where="--tokenizer", way_out="check the spelling; on the Hub it is named org/name")
    from estimator.source.hub_file import Files
    from estimator.source.visit import visit

    asked = visit(repository, token=token, offline=offline, timeout=timeout)
    files = Files(asked, MAX_TOKENIZER_BYTES)
    return files.read, files.keep, OfflineError if asked.offline else NotFoundError


def _odd(file: str, reason: object) -> LoraSizeError:
    return MalformedConfigError(f"{file} can't be read: {plain(reason, 200)}.", where=file, way_out=_WAY_OUT)


def _object(file: str, text: bytes) -> dict[str, Any]:
    try:
        value = parse_json(text, most=_MAX_PARSED_BYTES)
    except NotUsable as error:
        raise _odd(file, error) from error
    if not isinstance(value, dict):
        raise _odd(file, "it is no object")
    return value


def _of_tokenizer_json(file: str, text: bytes) -> set[str]:
    described = _object(file, text)
    model = described.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list):  # Unigram: pairs of a token and its score
        vocab = [piece[0] if isinstance(piece, list) and piece else None for piece in vocab]
    if not isinstance(vocab, dict | list):
        raise _odd(file, "its model has no vocab")
    return _texts(file, vocab) | _contents(file, described.get("added_tokens"))


def _of_vocab_json(file: str, text: bytes) -> set[str]:
    return set(_object(file, text))


def _of_vocab_txt(file: str, text: bytes) -> set[str]:
    """A token a line, even an empty one; other signs that end a line in Unicode are parts of a token.

    Rule: tokenizers 0.23.3, models/wordpiece/mod.rs (`read_file`): `lines()`, each without the spaces at its end.
    """
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError as error:
        raise _odd(file, f"it is not UTF-8 (byte {error.start:,})") from error
    return {line.rstrip() for line in (lines if lines[-1] else lines[:-1])}


_COUNTS = {"tokenizer.json": _of_tokenizer_json, "vocab.json": _of_vocab_json, "vocab.txt": _of_vocab_txt}


def _added(read: Read) -> set[str]:
    """Tokens of added_tokens.json and of tokenizer_config.json's added_tokens_decoder."""
    added: set[str] = set()
    if (text := read("added_tokens.json")) is not None:
        added |= set(_object("added_tokens.json", text))
    if (text := read("tokenizer_config.json")) is not None:
        decoder = _object("tokenizer_config.json", text).get("added_tokens_decoder")
        if not isinstance(decoder, dict | None):
            raise _odd("tokenizer_config.json", "its added_tokens_decoder is no object")
        added |= _contents("tokenizer_config.json", list((decoder or {}).values()))
    return added


def _contents(file: str, tokens: Any) -> set[str]:
    """What a list of added tokens adds, each an object with its `content`."""
    if not isinstance(tokens, list | None):
        raise _odd(file, "its added tokens are no list")
    return _texts(file, [token.get("content") if isinstance(token, dict) else None for token in tokens or ()])


def _texts(file: str, tokens: dict[str, Any] | list[Any]) -> set[str]:
    if not all(isinstance(token, str) for token in tokens):
        raise _odd(file, "one of its tokens is no text")
    return set(tokens)
