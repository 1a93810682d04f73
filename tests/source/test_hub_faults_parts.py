"""Parts of one model that do not belong together, and answers that repeat the token.

Every row ends within its bound: right, or with one clean error.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest

from estimator.errors import GatedError, LoraSizeError, MalformedHeaderError, NetworkError, NotFoundError
from estimator.source.hub import find_on_hub
from tests.hub.checks import METADATA, OTHER_COMMIT, RIGHT, check, on, outcome, row
from tests.hub.faults import changed, go_to, header, raw, refuse, say
from tests.hub.handler import Fault, Handler
from tests.hub.models import CONFIG, tiny_sharded, tiny_single
from tests.hub.standin import TOKEN, StandIn

INDEX = json.loads(tiny_sharded().files["model.safetensors.index.json"].head)
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
SIZE, CONFIG_SIZE = (tiny_single().files[name].size for name in ("model.safetensors", "config.json"))


def in_turn(*faults: Fault) -> Fault:
    """One fault after the other, then from the first again."""
    turn = itertools.cycle(faults)
    return lambda handler, right: next(turn)(handler, right)


def index(**changes: object) -> Fault:
    return say(json.dumps({**INDEX, **changes}).encode())


def moved(where: dict[str, str]) -> Fault:
    return index(weight_map={**INDEX["weight_map"], **where})


def endpoint(change: Callable[[dict], object]) -> Fault:
    """The metadata endpoint's answer with something changed in it."""
    answer = json.loads(METADATA)
    change(answer["headers"])
    return say(json.dumps(answer, separators=(",", ":")).encode())


# config.json's address names no commit, as a mirror may: the others have to agree all the same.
COMMITS = [
    row("resolve shard", header("X-Repo-Commit", None), RIGHT, id="no commit anywhere"),
    row(
        "resolve shard",
        in_turn(header("X-Repo-Commit", "a" * 40), header("X-Repo-Commit", OTHER_COMMIT)),
        NetworkError,
        "b" * 40,
        id="shards of two commits",
    ),
    row("resolve index", header("X-Repo-Commit", OTHER_COMMIT), NotFoundError, "bbbb", id="an index of another commit"),
]


@pytest.mark.parametrize(("route", "fault", "expected", "words"), COMMITS)
def test_commits_where_the_config_has_none(
    hub: StandIn, route: str, fault: Fault, expected: type[LoraSizeError] | None, words: str
) -> None:
    for silent in ("resolve config", "cached config", "resolve index", "cached index"):
        hub.faults[silent] = header("X-Repo-Commit", None)
    hub.faults[route] = fault
    check("org/ranged", expected, words)


SHARDS = [
    row("cached index", index(), RIGHT, id="as it is"),
    row(
        "cached index",
        index(weight_map={name: file for name, file in INDEX["weight_map"].items() if file == FIRST}),
        MalformedHeaderError,
        SECOND,
        id="a listed shard that the index leaves out",
    ),
    row("cached index", moved({"model.norm.weight": FIRST}), MalformedHeaderError, FIRST, id="a tensor elsewhere"),
    row("cached index", moved({"more.weight": FIRST}), MalformedHeaderError, "more.weight", id="a tensor too many"),
    row(
        "cached index",
        index(weight_map={name: file for name, file in INDEX["weight_map"].items() if name != "model.norm.weight"}),
        MalformedHeaderError,
        "model.norm.weight",
        id="a tensor too few",
    ),
    *(
        row("cached index", moved({"model.norm.weight": name}), MalformedHeaderError, id=f"a shard called {name[:20]!r}")
        for name in ("./" + SECOND, "a//" + SECOND, "sub/" + SECOND, "~/" + SECOND, SECOND + "?x=.safetensors",
                     SECOND + "#.safetensors", " " + SECOND, SECOND.upper(), "%252e%252e/" + SECOND, "a%2F..%2f" + SECOND,
                     "\uff0e\uff0e/" + SECOND, "C:" + SECOND, "file:" + SECOND, ".", "..", "a/" * 300 + SECOND)
    ),
    *(
        row("cached index", moved({"model.norm.weight": value}), MalformedHeaderError, "no file name", id=f"in {value!r}")  # type: ignore[dict-item]
        for value in (None, True, 1.5, [FIRST], {})
    ),
    *(
        row("cached index", index(metadata={"total_size": value}), RIGHT, id=f"a total of {value!r}")
        for value in (None, "many", -1, [], True, 10**40)
    ),
    row("cached index", say(json.dumps(INDEX).encode("utf-16")), MalformedHeaderError, "UTF-8", id="an index in UTF-16"),
    row("cached index", say(b'{"weight_map":NaN}'), MalformedHeaderError, "NaN", id="NaN for a weight_map"),
]  # fmt: skip


def whole(handler: Handler, right: Callable[[], None]) -> None:
    """The whole file in place of the part."""
    del handler.headers["Range"]
    right()


RANGES = [
    row("cdn", whole, RIGHT, id="the whole file in place of a part"),
    row("cdn", changed(lambda s, h, b: (s, h, b + b"more")), NetworkError, "bytes", id="a part longer than it says"),
    row("cdn", header("Content-Range", "bytes 99999-0/240368"), NetworkError, "asked for", id="a part backwards"),
    row("cdn", header("Content-Range", "bytes -5-10/20"), NetworkError, "asked for", id="a part before the file"),
    row(
        "cdn",
        changed(lambda s, h, b: (s, {**h, "Content-Range": str(h["Content-Range"]).replace("bytes", "Bytes")}, b)),
        RIGHT,
        id="Bytes in capitals",
    ),
    row(
        "cdn",
        changed(lambda s, h, b: (s, {**h, "Content-Range": [h["Content-Range"], "bytes 5-6/7"]}, b)),
        NetworkError,
        "asked for",
        id="two ranges in one answer",
    ),
    row(
        "cdn",
        changed(lambda s, h, b: (s, {"Content-Type": "multipart/byteranges; boundary=x"}, b"--x\r\n\r\n" + b)),
        NetworkError,
        id="parts in several pieces",
    ),
    row("cdn", refuse(204), NetworkError, "204", id="nothing in place of a part"),
    row("cdn", refuse(304), NetworkError, "304", id="not modified since never"),
    row("cdn", raw(b"HTTP/1.0 200 OK\r\n\r\n\x05"), MalformedHeaderError, id="one byte and the end"),
]


def listed(*files: tuple[str, object]) -> Fault:
    entries = [{"type": "file", "path": path, "size": size} for path, size in (("config.json", CONFIG_SIZE), *files)]
    return say(json.dumps(entries).encode())


LISTS = [
    row(
        "tree",
        listed(("model.safetensors", SIZE), ("model.safetensors", 1)),
        MalformedHeaderError,
        f"twice, of {SIZE:,} and of 1 bytes",
        id="two sizes",
    ),
    row("tree", listed(*[("model.safetensors", SIZE)] * 2), RIGHT, id="a file that is listed twice, of one size"),
    row("tree", listed(("config.json", 1)), MalformedHeaderError, "twice", id="a config of two sizes"),
    row(
        "cached config",
        say(json.dumps({**CONFIG, "num_attention_heads": 2}).encode()),
        NetworkError,
        f"gives it {CONFIG_SIZE:,}",
        id="a config of another revision",
    ),
    row("tree", listed(("model.safetensors", SIZE - 1)), MalformedHeaderError, f"{SIZE:,}", id="another size"),
    *(
        row("tree", listed(("model.safetensors", size)), RIGHT, id=f"a size of {size!r}")
        for size in ("240368", 240368.0, True, None, -1, 2**70)
    ),
    row("tree", listed(("../a.safetensors", 1), ("model.safetensors", SIZE)), RIGHT, id="a path that leads out"),
    row("tree", listed(("\x1b[2J", 1), ("model.safetensors", SIZE)), RIGHT, id="a path that clears the screen"),
    row(
        "tree",
        listed(*((f"m{number}.safetensors", 9) for number in range(2_500))),
        MalformedHeaderError,
        "2,500 files",
        id="2,500 files of weights",
    ),
    row("tree", header("X-Repo-Commit", OTHER_COMMIT), RIGHT, id="a list of another commit is not used"),
    row("tree", header("Link", "<<<>>>; rel=next"), RIGHT, id="a next page that is nowhere"),
    row("tree", header("Link", '<file:///etc/passwd>; rel="next"'), RIGHT, id="a next page in a file"),
]

ENDPOINT = [
    row("metadata", endpoint(lambda h: h.pop(SECOND)), MalformedHeaderError, SECOND, id="a shard not described"),
    row(
        "metadata",
        endpoint(lambda h: h.update({FIRST: h[SECOND], SECOND: h[FIRST]})),
        MalformedHeaderError,
        "list of files",
        id="two shards exchanged",
    ),
    row(
        "metadata",
        endpoint(lambda h: h[SECOND].update({"model.embed_tokens.weight": h[FIRST]["model.embed_tokens.weight"]})),
        MalformedHeaderError,
        "model.embed_tokens.weight",
        id="a tensor in two shards",
    ),
    row("metadata", endpoint(lambda h: h.update({FIRST: {}})), MalformedHeaderError, FIRST, id="a shard of nothing"),
    row(
        "metadata", say(METADATA.replace(b'"BF16"', b'"Q4"')), MalformedHeaderError, "Q4", id="a dtype of another tool"
    ),
    row("metadata", say(json.dumps(json.loads(METADATA), indent=2).encode()), RIGHT, id="written with indents"),
    row("metadata", say(b"\xef\xbb\xbf" + METADATA), RIGHT, id="a mark of the byte order"),
]


@pytest.mark.parametrize(
    ("model", "route", "fault", "expected", "words"),
    [*on("org/ranged", SHARDS), *on("org/single", RANGES, LISTS), *on("org/tiny", ENDPOINT)],
)
def test_parts_that_do_not_belong_together(
    hub: StandIn, model: str, route: str, fault: Fault, expected: type[LoraSizeError] | None, words: str
) -> None:
    hub.faults[route] = fault
    check(model, expected, words)


def repeated(where: str) -> Fault:
    """An answer with the token of the question in it."""

    def fault(handler: Handler, right: Callable[[], None]) -> None:
        token = handler.headers.get("Authorization", "").rpartition(" ")[2]
        if where == "body":
            handler.reply(200, {}, json.dumps({"model_type": token, "hidden_size": token}).encode())
        elif where == "address":
            handler.reply(302, {"Location": f"{handler.hub.cdn}/{token}"}, b"")
        else:
            handler.reply(200, {where: token}, b"{}")

    return fault


@pytest.mark.parametrize("route", ["resolve config", "cached config"])
@pytest.mark.parametrize("where", ["body", "address", "Content-Encoding", "X-Repo-Commit", "X-Other"])
def test_an_answer_that_repeats_the_token_is_neither_shown_nor_followed(hub: StandIn, route: str, where: str) -> None:
    hub.faults[route] = repeated(where)
    with pytest.raises(NetworkError, match="repeats the token") as caught:
        find_on_hub("org/tiny", token=TOKEN)
    assert TOKEN not in f"{caught.value.what}{caught.value.where}{caught.value.way_out}"
    assert not any(seen.server == "cdn" for seen in hub.seen)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_repository_that_has_another_name_now(hub: StandIn, status: int) -> None:
    right = "/org/single/resolve/main/config.json"
    hub.faults["resolve config"] = in_turn(go_to(right, status), lambda handler, answer: answer())
    assert find_on_hub("org/tiny").id == "org/single"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        pytest.param("/org/none/resolve/main/config.json", "redirected", id="to nobody"),
        pytest.param("/datasets/org/single/resolve/main/config.json", "no model", id="to data"),
        pytest.param("/..%2f..%2fetc/x/resolve/main/config.json", "redirected", id="above"),
    ],
)
def test_a_new_name_that_is_none(hub: StandIn, target: str, words: str) -> None:
    hub.faults["resolve config"] = go_to(target, 307)
    error = outcome("org/tiny", 8.0)
    assert isinstance(error, LoraSizeError)
    assert words in error.what


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(refuse(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"), "0 seconds", id="a date gone by"),
        pytest.param(refuse(429, retry_after="Sunday, 06-Nov-94 08:49:37 GMT"), "0 seconds", id="an old way of dates"),
        pytest.param(refuse(429, retry_after="2099-01-01T00:00:00Z"), "few minutes", id="another way of dates"),
        pytest.param(refuse(429, retry_after="0.5"), "few minutes", id="half a second"),
        pytest.param(refuse(429, retry_after="1, 2"), "few minutes", id="two numbers"),
        pytest.param(refuse(429, retry_after="\x1b[31m"), "few minutes", id="escape codes"),
        pytest.param(refuse(503, retry_after=900), "900 seconds", id="down for a quarter of an hour"),
        pytest.param(refuse(503, retry_after="9" * 400), "999,999,999 seconds", id="down for ever"),
    ],
)
def test_when_to_come_back(hub: StandIn, fault: Fault, words: str) -> None:
    hub.faults["resolve config"] = fault
    error = outcome("org/tiny", 8.0)
    assert isinstance(error, NetworkError)
    assert words in error.way_out


@pytest.mark.parametrize("route", ["resolve config", "cached config", "resolve shard"])
@pytest.mark.parametrize("code", ["GatedRepo", "DisabledRepo", ""])
def test_a_refusal_at_any_part(hub: StandIn, route: str, code: str) -> None:
    hub.faults[route] = refuse(403, code, "\x1b[2J\u202e".encode().decode("latin1"))
    error = outcome("org/ranged", 8.0)
    assert isinstance(error, GatedError)
    assert f"{error.what}{error.where}{error.way_out}".isprintable()
