"""One question to the Hub, about a model or an adapter: what is asked for, where, with which settings and how long."""

import time
from typing import NamedTuple, TypedDict

from estimator.source.cache import Entry, read_ref, write_behind
from estimator.source.hub_settings import hub_settings, open_line
from estimator.source.place import Place, is_commit, place_of
from estimator.source.transport import Line


class How(TypedDict, total=False):
    """The options of the same names, as `visit` takes them."""

    revision: str | None
    subfolder: str | None
    token: str | None
    offline: bool
    timeout: float


class Visit(NamedTuple):
    """What one question to the Hub needs."""

    place: Place  # the revision as it was asked for
    cache: str  # the folder of HF_HUB_CACHE
    offline: bool
    token: str | None
    deadline: float  # of time.monotonic

    def line(self) -> Line:
        """Raises UsageError where the token can't be sent."""
        return open_line(self.place.endpoint, self.token, self.deadline)

    def known(self) -> Place | None:
        """The place at its commit, where that is known without asking: it was named, or seen and may not be asked."""
        if is_commit(self.place.revision):
            return self.place
        commit = read_ref(self.cache, self.place.id, self.place.revision) if self.offline else None
        return self.place.at(commit) if commit else None

    def keep(self, id_: str, commit: str | None, entry: Entry | None) -> None:
        """Keep an answer under the Hub's id and, where the repository was renamed, under the one asked for as well."""
        if is_commit(commit):
            write_behind(self.cache, {self.place.id, id_}, self.place.revision, commit, entry)


def visit(
    id_: str,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    token: str | None = None,
    offline: bool = False,
    timeout: float = 60.0,
) -> Visit:
    """A revision (default: the branch main), to be answered within `timeout` seconds.

    Raises UsageError for settings that can't be used, NotFoundError for what is no id.
    """
    deadline = time.monotonic() + timeout
    settings = hub_settings()
    return Visit(
        place=place_of(settings.endpoint, id_, revision, subfolder),
        cache=settings.cache,
        offline=offline or settings.offline,
        token=token,
        deadline=deadline,
    )
