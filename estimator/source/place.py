"""One revision of one repository on the Hub, and the addresses of what lies there."""

import re
from typing import NamedTuple, Self, TypeGuard
from urllib.parse import quote

from estimator.errors import NetworkError, NotFoundError, UsageError
from estimator.source.plain import plain

DEFAULT_REVISION = "main"
_LONGEST_REVISION = 255  # characters, as git's files have it
_COMMIT = re.compile(r"[0-9a-f]{40}")
# huggingface_hub 2.4.0, utils/_validators.py (`validate_repo_id`): up to 96 characters a part, at most one slash.
_PART = r"\w(?:[\w.-]{0,94}\w)?"
_ID = re.compile(f"(?:{_PART}/)?{_PART}", re.ASCII)
_PAGE = re.compile(rf"(?:https?://[^/]+|(?:huggingface|hf)\.co)/({_PART}(?:/{_PART})?)", re.ASCII)


def is_commit(revision: str | None) -> TypeGuard[str]:
    """Whether a revision is a full commit, which can never mean anything else."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def is_path(text: str) -> bool:
    """Whether a name can only be a path on this machine: the Hub's have one slash at most, and no other sign of one."""
    return text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text or ":/" in text


def is_id(text: str) -> bool:
    """Whether a repository of the Hub can be called so."""
    odd = "--" in text or ".." in text or text.endswith(".git")
    return _ID.fullmatch(text) is not None and not odd


def id_in_page(address: str) -> str | None:
    """The repository whose page in a browser has this address; None where it is the address of none."""
    page = _PAGE.match(address)
    return page[1].removesuffix(".git") if page else None


class Place(NamedTuple):
    """A folder of a repository at a revision."""

    endpoint: str
    id: str
    revision: str  # a branch, a tag or a commit
    folder: str  # "" or a path that ends in "/"

    def resolve(self, name: str) -> str:
        """The address of a file in the folder."""
        return f"{self.endpoint}/{self.id}/resolve/{quote(self.revision, safe='')}/{quote(self.folder + name)}"

    def tree(self) -> str:
        """The address of the list of all files."""
        return f"{self.endpoint}/api/models/{self.id}/tree/{quote(self.revision, safe='')}?recursive=true"

    def safetensors_metadata(self, index_name: str) -> str:
        """The address that answers all headers of a sharded model at once; it knows the default revision alone."""
        return f"{self.endpoint}/api/models/{self.id}/safetensors-metadata/{quote(self.folder + index_name)}"

    def at(self, commit: str) -> Self:
        """The same place, held fast at a commit."""
        return self._replace(revision=commit)

    def where(self, name: str = "") -> str:
        """The place in words, for a message."""
        return plain(f"{self.folder}{name} in {self.id}" if self.folder or name else self.id) + self._at()

    def _at(self) -> str:
        if is_commit(self.revision):
            return f" at {self.revision[:12]}"
        return "" if self.revision == DEFAULT_REVISION else f" at {plain(self.revision, 60)}"

    def check_commit(self, commit: str | None, *, of: str) -> None:
        """Raises NetworkError where an answer belongs to another commit than the one it was asked of."""
        if commit is not None and is_commit(self.revision) and commit != self.revision:
            what = f"{of} comes from commit {plain(commit, 40)}, but {self.revision} was asked for."
            raise NetworkError(
                what, where=self.id, way_out="try again; if it happens again, the mirror mixes revisions up"
            )


def place_of(endpoint: str, id_: str, revision: str | None, subfolder: str | None) -> Place:
    """The place that is asked for.

    Raises NotFoundError for what can be no id or no revision, UsageError for a folder outside.
    """
    if not is_id(id_):
        way_out = "give it as org/name"
        raise NotFoundError(f"{plain(id_, 100)!r} can be no repository of the Hub.", where="--model", way_out=way_out)
    revision = revision or DEFAULT_REVISION
    if not revision.isprintable() or len(revision) > _LONGEST_REVISION or revision in (".", ".."):
        what = f"{plain(revision, 100)!r} can be no revision."
        raise NotFoundError(what, where="--revision", way_out="name a branch, a tag or a commit")
    return Place(endpoint=endpoint, id=id_, revision=revision, folder=folder_of(subfolder))


def folder_of(subfolder: str | None) -> str:
    """A subfolder as a prefix of paths: "" or ending in "/". Raises UsageError where it leaves the model's folder."""
    parts = [part for part in (subfolder or "").replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts or (subfolder or "").startswith(("/", "\\")) or not (subfolder or "").isprintable():
        what = f"the subfolder {plain(subfolder, 100)!r} lies outside the model."
        raise UsageError(what, where="--subfolder", way_out="give a path inside it")
    return "".join(part + "/" for part in parts)
