"""The stand-in Hub: two real servers on the loopback interface, one that speaks as the Hub and one as its CDN.

Small files answer 307 to /api/resolve-cache/, large ones 302 to a signed address on the CDN, which is another origin
and another host name. Every request is written down. A fault takes the place of one route's answer.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import parse_qs, quote, urlsplit

from tests.hub.handler import Fault, Handler, Seen, Server
from tests.hub.models import File, Repo

TOKEN = "hf_standin_token"
SMALL_PAGE = 1_000


class StandIn:
    """`with StandIn([repo]) as hub:` serves until the end; hub.endpoint is what HF_ENDPOINT has to be."""

    def __init__(
        self, repos: Iterable[Repo], *, latency: float = 0.0, prefix: str = "", page: int = SMALL_PAGE
    ) -> None:
        self.repos = {repo.id: repo for repo in repos}
        self.latency, self.prefix, self.page = latency, prefix, page
        self.faults: dict[str, Fault] = {}
        self.renamed: dict[str, str] = {}  # old id -> new id
        self._seen: list[Seen] = []
        self._under_way, self._changed = 0, threading.Condition()
        self.connections: Counter[str] = Counter()
        self._servers = {name: Server(("127.0.0.1", 0), self._handler(name)) for name in ("hub", "cdn")}
        self.endpoint = f"http://127.0.0.1:{self._port('hub')}{prefix}"
        self.cdn = f"http://localhost:{self._port('cdn')}"

    def add(self, repo: Repo) -> None:
        """Serves one more repository, or another one under the same id."""
        self.repos[repo.id] = repo

    def __enter__(self) -> StandIn:
        for server in self._servers.values():
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def _handler(self, name: str) -> type[Handler]:
        return type("Bound", (Handler,), {"hub": self, "name": name})

    def _port(self, name: str) -> int:
        return self._servers[name].server_address[1]

    @contextmanager
    def under_way(self, handler: Handler) -> Iterator[None]:
        """One request from its arrival to its end, when it is written down."""
        with self._changed:
            self._under_way += 1
        try:
            yield
        finally:
            headers = dict(handler.headers)
            with self._changed:
                self._seen.append(
                    Seen(handler.name, handler.route, handler.path, headers, handler.status, handler.sent)
                )
                self._under_way -= 1
                self._changed.notify_all()

    @property
    def seen(self) -> list[Seen]:
        """All requests in the order in which they ended, once none is under way (or one hangs)."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way == 0, timeout=2)
        return self._seen

    def routes(self) -> list[str]:
        """The routes asked for, in the order in which they were answered."""
        return [seen.route for seen in self.seen]

    def answer(self, handler: Handler, parts: list[str]) -> tuple[str, Callable[[], None]]:
        """The route of a request to the Hub, and its right answer."""
        if parts[:2] == ["api", "resolve-cache"]:
            repo = self.repos.get("/".join(parts[3:5]))
            name = "/".join(parts[6:])
            return _of_file(name, "cached"), lambda: self._cached(
                handler, repo, parts[5] if len(parts) > 5 else "", name
            )
        if parts[:2] == ["api", "models"]:
            return self._api(handler, "/".join(parts[2:4]), parts[4:])
        if "resolve" in parts[1:3]:
            at = parts.index("resolve")
            name = "/".join(parts[at + 2 :])
            return _of_file(name, "resolve"), lambda: self._resolve(handler, "/".join(parts[:at]), parts[at + 1], name)
        return "unknown", lambda: handler.refuse(404)

    def answer_cdn(self, handler: Handler, parts: list[str]) -> tuple[str, Callable[[], None]]:
        """The route of a request to the CDN, and its right answer."""
        org, name, commit, *rest = parts
        repo = self.repos.get(f"{org}/{name}")
        files = repo.at(commit) if repo else None
        file = files.get("/".join(rest)) if files else None
        if file is None or "Signature=" not in handler.path:
            return "cdn", lambda: handler.reply(403, {"Content-Type": "application/xml"}, b"<Error/>")
        return "cdn", lambda: self.send_file(handler, file)

    def _api(self, handler: Handler, id_: str, rest: list[str]) -> tuple[str, Callable[[], None]]:
        if rest[:1] == ["safetensors-metadata"]:
            return "metadata", lambda: self._metadata(handler, id_, "/".join(rest[1:]))
        if rest[:1] == ["tree"]:
            return "tree", lambda: self._tree(handler, id_, "/".join(rest[1:]))
        return "unknown", lambda: handler.refuse(404)

    def _allowed(self, handler: Handler, id_: str, *, for_files: bool) -> Repo | None:
        """The repository, or None once the refusal is sent."""
        repo = self.repos.get(self.renamed.get(id_, id_))
        given = handler.headers.get("Authorization")
        known = given == f"Bearer {TOKEN}"
        if given and not known:
            handler.refuse(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and not known):
            handler.refuse(404 if known else 401, "RepoNotFound", "Repository not found")
        elif repo.gated and for_files and not known:
            handler.refuse(401, "GatedRepo", f"Access to model {id_} is restricted.")
        else:
            return repo
        return None

    def _held(
        self, handler: Handler, id_: str, revision: str, *, for_files: bool
    ) -> tuple[Repo | None, Mapping[str, File] | None]:
        """The repository and its files at a revision; None once the refusal is sent."""
        repo = self._allowed(handler, id_, for_files=for_files)
        files = repo.at(revision) if repo is not None else None
        if repo is not None and files is None:
            handler.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, files

    def _metadata(self, handler: Handler, id_: str, index: str) -> None:
        repo = self._allowed(handler, id_, for_files=True)
        if repo is not None:
            body = repo.metadata.get(index) if repo.endpoint else None
            if body is None:
                handler.refuse(404, "", "Not found")
            else:
                handler.reply(200, {"Content-Type": "application/json; charset=utf-8"}, body)

    def _tree(self, handler: Handler, id_: str, revision: str) -> None:
        repo, files = self._held(handler, id_, revision, for_files=False)
        if repo is None or files is None:
            return
        start = int(parse_qs(urlsplit(handler.path).query).get("cursor", ["0"])[0])
        entries = [_listed(path, file) for path, file in files.items()]
        headers = {}
        if start + self.page < len(entries):
            url = f"{self.endpoint}/api/models/{id_}/tree/{quote(revision, safe='')}?recursive=true&cursor={start + self.page}"
            headers["Link"] = f'<{url}>; rel="next"'
        handler.json(200, entries[start : start + self.page], headers)

    def _resolve(self, handler: Handler, id_: str, revision: str, name: str) -> None:
        if id_ in self.renamed:
            url = f"{self.prefix}/{self.renamed[id_]}/resolve/{quote(revision, safe='')}/{quote(name)}"
            handler.reply(307, {"Location": url})
            return
        repo, files = self._held(handler, id_, revision, for_files=True)
        if repo is None or files is None:
            return
        commit = repo.commit_of(revision)
        file = files.get(name)
        if file is None:
            body = json.dumps({"error": "Entry not found"}).encode()
            handler.reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, body)
            return
        headers = {"X-Repo-Commit": commit, "ETag": '"0"'}
        if file.lfs:
            headers["X-Linked-Size"] = str(file.size)
            url = f"{self.cdn}/{repo.id}/{commit}/{quote(name)}?Expires=1&Signature=secret"
            handler.reply(302, {**headers, "Location": url}, b"Found. Redirecting")
        else:
            url = f"{self.prefix}/api/resolve-cache/models/{repo.id}/{commit}/{quote(name)}?etag=0"
            handler.reply(307, {**headers, "Location": url}, b"Temporary Redirect. Redirecting")

    def _cached(self, handler: Handler, repo: Repo | None, commit: str, name: str) -> None:
        files = repo.at(commit) if repo else None
        if files is None or name not in files:
            handler.refuse(404, "EntryNotFound")
        else:
            self.send_file(handler, files[name], {"X-Repo-Commit": commit, "ETag": '"0"'})

    def send_file(self, handler: Handler, file: File, headers: Mapping[str, object] = {}) -> None:
        """A file, or the part of it that is asked for."""
        span = _span(handler.headers.get("Range", ""), file.size)
        if span is None:
            handler.reply(200, {**headers, "Content-Length": file.size, "Accept-Ranges": "bytes"})
            for first in range(0, file.size, 1 << 20):
                handler.body(file.part(first, first + (1 << 20) - 1))
        elif span[0] >= file.size:
            handler.reply(416, {"Content-Range": f"bytes */{file.size}"})
        else:
            first, last = span
            named = f"bytes {first}-{last}/{file.size}"
            handler.reply(206, {**headers, "Content-Range": named}, file.part(first, last))


def _of_file(name: str, kind: str) -> str:
    """The route of a file: its kind of answer, and whether it is the config, an index or weights."""
    base = name.rpartition("/")[2]
    what = {"config.json": "config", "adapter_config.json": "config"}.get(base)
    what = what or ("index" if base.endswith(".index.json") else "shard" if base.endswith(".safetensors") else "other")
    return f"{kind} {what}"


def _listed(path: str, file: File) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "oid": "0" * 40, "size": file.size, "path": path}
    if file.lfs:
        entry["lfs"] = {"oid": "0" * 64, "size": file.size, "pointerSize": 135}
    return entry


def _span(text: str, size: int) -> tuple[int, int] | None:
    if not text.startswith("bytes="):
        return None
    first, _, last = text[len("bytes=") :].partition("-")
    return int(first), min(int(last), size - 1) if last else size - 1
