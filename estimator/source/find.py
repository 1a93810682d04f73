"""Who answers for a model: a local folder, the bundled snapshot, or the Hub and its cache."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Unpack

from estimator.errors import LoraSizeError, NetworkError, NotFoundError, OfflineError, UsageError
from estimator.notes import Note
from estimator.source.found import Found
from estimator.source.snapshot import find_in_snapshot, known_models

if TYPE_CHECKING:
    from estimator.source.visit import How


def find(
    model: str,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    token: str | None = None,
    offline: bool = False,
    online: bool = False,
    timeout: float = 60.0,
) -> Found:
    """Config and headers of `model`: a path, an alias, `org/name` or `org/name@revision`.

    Raises NotFoundError, GatedError, NetworkError, OfflineError, MalformedHeaderError, MalformedConfigError.
    """
    if offline and online:
        way_out = "give one of the two"
        raise UsageError("--offline and --online contradict each other.", where="--online", way_out=way_out)
    is_local = _is_local(model)
    name = model
    if not is_local:
        name, revision = at_revision(model, revision, "--model")
    bundled = not (is_local or online or revision or subfolder)
    if bundled and (found := find_in_snapshot(name)) is not None:
        return found
    if is_local or os.path.isfile(model):  # of a file that is no model's, it says which ones are read
        return _on_this_machine(model, revision, subfolder)
    return _ask_hub(name, revision=revision, subfolder=subfolder, token=token, offline=offline, timeout=timeout)


def at_revision(written: str, revision: str | None, option: str) -> tuple[str, str | None]:
    """The name and the revision in `org/name@revision`, which `option` was given, beside --revision.

    Raises UsageError where the two contradict each other or nothing is behind the @, NotFoundError for no name.
    """
    name, at, behind = written.partition("@")
    if revision and behind and revision != behind:
        what = f"the {option.removeprefix('--')} says revision {behind[:80]!r}, and --revision {revision[:80]!r}."
        raise UsageError(what, where=f"{option} and --revision", way_out="give one of the two")
    if not name:
        what = f"{written[:200]!r} names no {option.removeprefix('--')} before its @."
        raise NotFoundError(what, where=option, way_out="write org/name@revision")
    if at and not behind.strip():
        what = f"{written[:200]!r} names no revision behind its @."
        raise UsageError(what, where=option, way_out="write org/name@revision, or leave the @ out")
    return name, revision or behind or None


def _on_this_machine(path: str, revision: str | None, subfolder: str | None) -> Found:
    """What lies at a path, which hides a bundled model of that name."""
    from estimator.source.folder import find_in_folder  # a bundled model needs nothing of it

    try:
        found = find_in_folder(os.path.expanduser(path), subfolder=subfolder)
    except NotFoundError as error:
        hidden = find_in_snapshot(path)
        if hidden is None or os.path.exists(hidden.id):
            raise
        way_out = f"{error.way_out}; or --model {hidden.id}, which this folder hides"
        raise NotFoundError(error.what, where=error.where, way_out=way_out) from error
    if revision is None:
        return found
    message = f"What lies on this machine has no revisions: {revision[:80]!r} changes nothing, as in from_pretrained."
    return found._replace(notes=(*found.notes, Note("revision_without_effect", message)))


def answers_without_network(
    model: str, *, revision: str | None, subfolder: str | None, offline: bool, online: bool, **_: object
) -> bool:
    """Whether a path or a bundled model is named, or the network is not to be used."""
    if offline or os.path.exists(os.path.expanduser(model)) or model.startswith((".", "/", "~")):
        return True
    return not (online or revision or subfolder or "@" in model) and find_in_snapshot(model) is not None


def closest_names(name: str) -> list[str]:
    """Three bundled models at most whose id or alias is spelled almost like `name`, best first."""
    from difflib import get_close_matches

    spellings: dict[str, str] = {}
    for known in known_models():
        for spelling in (known.id, known.id.rpartition("/")[2], *known.aliases):
            spellings.setdefault(spelling.lower(), known.id)
    close = get_close_matches(name.lower(), spellings, n=9, cutoff=0.6)
    return list(dict.fromkeys(spellings[spelling] for spelling in close))[:3]


def _is_local(model: str) -> bool:
    if os.path.isdir(model) or (os.path.isfile(model) and model.endswith((".json", ".safetensors"))):
        return True
    if os.path.islink(model) and not os.path.exists(model):
        what, way_out = f"{model} is a link that leads nowhere.", "make it again, or name the folder itself"
        raise NotFoundError(what, where="--model", way_out=way_out)
    looks_like_a_path = model.startswith((".", "/", "~")) or "\\" in model or model[1:3] == ":/"
    if looks_like_a_path and not os.path.exists(os.path.expanduser(model)):
        like = named_like(model)
        named = f"or --model {like}, if that lay there" if like else "a model of the Hub is named org/name"
        way_out = f"check the spelling; {named}"
        raise NotFoundError(f"there is no folder {model}.", where="--model", way_out=way_out)
    return looks_like_a_path


def named_like(path: str) -> str | None:
    """The bundled model that a folder is named for, as people name those that they download into."""
    leaf = path.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
    return next((known.id for known in known_models() if known.id.lower().rpartition("/")[2] == leaf), None)


def _ask_hub(name: str, **how: Unpack[How]) -> Found:
    from estimator.source.place import is_id

    if not is_id(name):
        raise _unknown(name, f"{name[:200]!r} is neither a folder, a known model nor an id of the Hub.")
    from estimator.source.hub import find_on_hub

    bundled = find_in_snapshot(name)
    try:
        return find_on_hub(bundled.id if bundled else name, **how)
    except (NetworkError, OfflineError) as error:
        close = [] if bundled else closest_names(name)
        if "/" in name and close:
            way_out = f"{error.way_out}; or did you mean {' or '.join(close)}?"
            raise type(error)(error.what, where=error.where, way_out=way_out) from error
        if "/" in name or bundled:
            raise
        raise _unknown(
            name, f"no model is known as {name!r} without a network, and the Hub was not reached."
        ) from error
    except NotFoundError as error:
        if bundled or not closest_names(name):
            raise
        raise _unknown(name, error.what) from error


def _unknown(name: str, what: str) -> LoraSizeError:
    from estimator.source.place import id_in_page, is_id

    close = closest_names(name)
    way_out = f"did you mean {' or '.join(close)}?" if close else "`lora-size models` lists what is known offline"
    id_ = id_in_page(name) or name.strip().rstrip("/").removesuffix(".git")
    if id_ != name and is_id(id_):
        way_out = f"name it by its id: --model {id_}"
    return NotFoundError(what, where="--model", way_out=way_out)
