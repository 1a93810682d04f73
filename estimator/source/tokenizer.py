"""How many tokens a tokenizer has, from its files: `len(tokenizer)` without loading it."""

from __future__ import annotations

import json
import os
from typing import Any

from estimator.errors import (
    GatedError,
    LoraSizeError,
    MalformedConfigError,
    NetworkError,
    NotFoundError,
    OfflineError,
)

MAX_TOKENIZER_BYTES = 200_000_000
_WAY_OUT = "give the number itself with --vocab-size"


def vocabulary_size(name: str, *, token: str | None = None, offline: bool = False) -> int:
    """`len(tokenizer)` of a folder, a tokenizer.json or a repository of the Hub: each token once, added ones included.

    Rule: transformers 5.23.0, tokenization_utils_tokenizers.py (`__len__`), get_vocab_size(with_added_tokens=True).
    Raises NotFoundError where no file says it, MalformedConfigError where one can't be read, NetworkError, OfflineError
    and GatedError where the Hub does not give it.
    """
    path = name if os.path.exists(name) else _fetched(name, token, offline)
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    for file_name, count in _COUNTS.items():
        file = os.path.join(folder, file_name)
        if os.path.isfile(file):
            return len(count(file) | _added(folder))
    raise NotFoundError(f"{name} holds none of {', '.join(_COUNTS)}.", where="--tokenizer", way_out=_WAY_OUT)


def _fetched(repository: str, token: str | None, offline: bool) -> str:
    """The folder of the Hub's cache that holds the tokenizer's files; they are few and of bounded size."""
    import httpx2
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

    def file(name: str) -> str | None:
        try:
            if (
                not offline
                and (get_hf_file_metadata(hf_hub_url(repository, name), token=token).size or 0) > MAX_TOKENIZER_BYTES
            ):
                raise _odd(name, "it is over the limit of a tokenizer")
            return hf_hub_download(repository, name, token=token, local_files_only=offline)
        except (errors.EntryNotFoundError, errors.LocalEntryNotFoundError):
            return None

    try:
        files = [found for name in (*_COUNTS, *_BESIDE) if (found := file(name)) is not None]
    except errors.GatedRepoError as error:
        raise GatedError(f"{repository} is gated.", where="--tokenizer", way_out=_WAY_OUT) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        what = f"there is no tokenizer at {repository}, here or on the Hub."
        raise NotFoundError(what, where="--tokenizer", way_out=_WAY_OUT) from error
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, httpx2.HTTPError, OSError) as error:
        raise NetworkError("the Hub was not reached.", where="--tokenizer", way_out=_WAY_OUT) from error
    if not files:
        kind = OfflineError if offline else NotFoundError
        raise kind(f"no tokenizer of {repository} was found.", where="--tokenizer", way_out=_WAY_OUT)
    return os.path.dirname(files[0])


_BESIDE = ("added_tokens.json", "tokenizer_config.json")


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
