"""What was read of a commit, kept for good.

A commit is immutable, so an answer about it never ages. An entry is one file beside what the Hub's own tools keep:

    {HF_HUB_CACHE}/models--{org}--{name}/lora-size/v2/{commit}[+{folder, quoted}].entry

    line 1      lora-size 2 {crc32 of all that follows, in hex}
    line 2      JSON: {"id", "commit", "folder", "parts": [[kind, name, bytes, file's bytes, header's bytes], ...],
                "other_files": {name: bytes}, "notes": [[code, message], ...]}
    then        the parts, one after the other; kind is
                "config"    config.json as the Hub sent it
                "index"     the shards' index as the Hub sent it
                "stacks"    a file's header as compact.py writes it
                "header"    a file's header that compact.py does not read, as JSON

    .../lora-size/v2/refs/{revision, quoted}    the commit that a branch or tag stood at when it was last asked for

Both are written beside their place and moved into it, so that readers see a whole file or none; an entry whose lengths
or sum do not fit is read as none. `hf cache rm` removes them with the repository's folder; an empty `snapshots` makes
the folder one that `hf cache ls` can read. Nothing here holds a token.
"""

import json
import os
import threading
import time
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote

from estimator.notes import Note
from estimator.source.compact import UNREADABLE, of_json, to_json
from estimator.source.found import StoredFile
from estimator.source.opening import open_file
from estimator.source.place import is_commit, is_id
from estimator.source.stack import Compact

FORMAT = 2
_MAX_ENTRY_BYTES = 256_000_000
_STALE_SECONDS = 3_600
_KINDS = ("config", "index", "stacks", "header")
_UNWRITABLE = (OSError, RecursionError)  # the latter of a path a thousand folders deep
_WRITERS: list[threading.Thread] = []


class Part(NamedTuple):
    """One text of an entry: a config, an index, a header."""

    kind: str  # one of _KINDS
    name: str
    text: bytes
    file_bytes: int | None = None  # of the file whose header it is
    header_bytes: int | None = None  # of that header, with its padding


class Entry(NamedTuple):
    """What was read of one commit."""

    id: str  # the Hub's own
    commit: str
    folder: str
    parts: tuple[Part, ...]
    other_files: Mapping[str, int] = {}
    notes: tuple[Note, ...] = ()


def header_part(stored: StoredFile) -> Part:
    """What is kept of a file's header."""
    header = stored.header
    if isinstance(header, Compact):
        kind, text = "stacks", to_json(header)
    else:
        kind, text = "header", header if isinstance(header, bytes) else json.dumps(header).encode()
    return Part(kind, stored.path, text, stored.actual_bytes, stored.header_length)


def header_of(part: Part) -> StoredFile:
    """A file's header from what is kept of it. Raises one of UNREADABLE where it can't be read."""
    header = of_json(part.text) if part.kind == "stacks" else part.text
    return StoredFile(part.name, header, part.header_bytes, part.file_bytes)


def repository_folder(cache: str, id_: str) -> str:
    """Where the Hub's tools keep a model (huggingface_hub 2.4.0, file_download.py, `repo_folder_name`)."""
    return os.path.join(cache, "--".join(["models", *id_.split("/")]))


def read_entry(cache: str, id_: str, commit: str, folder: str) -> Entry | None:
    """The entry of a commit; None where there is none that is whole."""
    settle()
    try:
        with open_file(_entry_path(cache, id_, commit, folder)) as file:
            if os.fstat(file.fileno()).st_size > _MAX_ENTRY_BYTES:
                return None
            first_line, rest = file.readline(100), file.read()
        if first_line != _first_line(zlib.crc32(rest)):
            return None
        entry = _parsed(rest)
    except (OSError, RecursionError, *UNREADABLE):
        return None
    return entry if (entry.commit, entry.folder) == (commit, folder) else None


def _first_line(crc: int) -> bytes:
    return b"lora-size %d %08x\n" % (FORMAT, crc)


def _parsed(rest: bytes) -> Entry:
    at = rest.index(b"\n") + 1
    head = json.loads(rest[:at])
    parts = []
    for kind, name, length, *sizes in head["parts"]:
        parts.append(Part(kind, name, rest[at : at + length], *sizes))
        at += length
    if at != len(rest):
        raise ValueError("the parts do not fill the entry")
    if not parts or not all(map(_is_sound, parts)) or not is_id(head["id"]):
        raise ValueError("the parts are not those of a repository")
    notes = tuple(Note(str(code), str(message)) for code, message in head["notes"])
    named = {key: head[key] for key in ("id", "commit", "folder", "other_files")}
    return Entry(parts=tuple(parts), notes=notes, **named)


def _is_sound(part: Part) -> bool:
    sizes = (part.file_bytes, part.header_bytes)
    sized = all(size is None or (type(size) is int and size >= 0) for size in sizes)
    return part.kind in _KINDS and isinstance(part.name, str) and sized


def has_entry(cache: str, id_: str, commit: str, folder: str) -> bool:
    """Whether something is kept of a commit, whole or not."""
    return os.path.isfile(_entry_path(cache, id_, commit, folder))


def forget(cache: str, id_: str, commit: str) -> None:
    """Remove what is kept of a commit."""
    settle()
    root = _root(cache, id_)
    with suppress(OSError):
        for name in os.listdir(root):
            if name.startswith(commit) and name.endswith(".entry"):
                os.unlink(os.path.join(root, name))


def write_behind(cache: str, ids: Iterable[str], revision: str, commit: str, entry: Entry | None) -> None:
    """Keep an entry under each id, and which commit the revision stands at, while the caller goes on.

    The process ends after it is done, and what is read here waits for it.
    """

    def write() -> None:
        for id_ in ids:
            if entry is not None:
                write_entry(cache, id_, entry)
            write_ref(cache, id_, revision, commit)

    writer = threading.Thread(target=write, daemon=False)  # not as the caller, which may be one that nobody waits for
    writer.start()
    _WRITERS.append(writer)


def settle() -> None:
    """Wait until everything is written that this process keeps."""
    while _WRITERS:
        _WRITERS.pop().join()


def write_entry(cache: str, id_: str, entry: Entry) -> None:
    """Keep an entry under an id. Where the cache can't be written, nothing is kept."""
    head = {
        "id": entry.id,
        "commit": entry.commit,
        "folder": entry.folder,
        "parts": [[part.kind, part.name, len(part.text), *part[3:]] for part in entry.parts],
        "other_files": dict(entry.other_files),
        "notes": entry.notes,
    }
    texts = [json.dumps(head).encode() + b"\n", *(part.text for part in entry.parts)]
    crc = 0
    for text in texts:
        crc = zlib.crc32(text, crc)
    path = _entry_path(cache, id_, entry.commit, entry.folder)
    with suppress(*_UNWRITABLE):
        os.makedirs(os.path.join(repository_folder(cache, id_), "snapshots"), exist_ok=True)
        _write(path, [_first_line(crc), *texts])
        _sweep(os.path.dirname(path))


def read_ref(cache: str, id_: str, revision: str) -> str | None:
    """The commit that a branch or tag was last seen at, by this tool or by the Hub's own; None where it never was."""
    settle()
    ours = _ref_path(cache, id_, revision)
    theirs = os.path.join(repository_folder(cache, id_), "refs", *revision.split("/"))
    seen = []
    for path in (ours, theirs) if ".." not in revision.split("/") and "\0" not in revision else (ours,):
        try:
            with open_file(path) as file:
                commit = file.read(64).decode("ascii").strip()
                if is_commit(commit):
                    seen.append((os.fstat(file.fileno()).st_mtime, commit))
        except (OSError, ValueError):
            continue
    return max(seen)[1] if seen else None


def write_ref(cache: str, id_: str, revision: str, commit: str) -> None:
    """Keep which commit a branch or tag stands at now."""
    if not is_commit(revision):
        keep_file(_ref_path(cache, id_, revision), commit.encode())


def kept_ids(cache: str) -> list[str]:
    """Ids of the models of which something is kept, in order."""
    try:
        names = sorted(os.listdir(cache))
    except OSError:
        return []
    return [name[len("models--") :].replace("--", "/", 1) for name in names if name.startswith("models--")]


def keep_file(path: str, text: bytes) -> None:
    """Keep a file as it is. Where the cache can't be written, nothing is kept."""
    with suppress(*_UNWRITABLE):
        _write(path, [text])


def _root(cache: str, id_: str) -> str:
    return os.path.join(repository_folder(cache, id_), "lora-size", f"v{FORMAT}")


def _entry_path(cache: str, id_: str, commit: str, folder: str) -> str:
    name = commit + ("+" + quote(folder.rstrip("/"), safe="") if folder else "")
    return os.path.join(_root(cache, id_), name[:200] + ".entry")


def _ref_path(cache: str, id_: str, revision: str) -> str:
    return os.path.join(_root(cache, id_), "refs", quote(revision, safe="").replace(".", "%2E")[:200])


def _write(path: str, texts: list[bytes]) -> None:
    """Write a file whole or not at all: beside its place under a name of this process's own, then moved."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    draft = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
    try:
        with open(draft, "xb") as file:
            file.writelines(texts)
        os.replace(draft, path)
    except BaseException:
        if os.path.exists(draft):
            os.unlink(draft)
        raise


def _sweep(folder: str) -> None:
    """Remove the drafts of writers that were killed."""
    with os.scandir(folder) as entries:
        stale = [entry.path for entry in entries if entry.name.endswith(".tmp") and _age(entry) > _STALE_SECONDS]
    for path in stale:
        os.unlink(path)


def _age(entry: os.DirEntry[str]) -> float:
    return time.time() - entry.stat().st_mtime
