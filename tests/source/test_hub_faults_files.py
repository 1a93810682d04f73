"""The index, the shards and their headers answer wrongly, where they are read by ranges.

Every row ends within its bound: right, or with one clean error.
"""

from __future__ import annotations

import json

import pytest

from estimator.errors import (
    GatedError,
    LoraSizeError,
    MalformedHeaderError,
    NetworkError,
    NotFoundError,
)
from tests.hub.checks import HTML, NESTED, OTHER_COMMIT, RIGHT, check, on, row
from tests.hub.faults import (
    as_file,
    bomb,
    changed,
    cut,
    endless,
    go_to,
    hang_up,
    header,
    refuse,
    replaced,
    say,
    silence,
    times,
)
from tests.hub.handler import Fault
from tests.hub.models import (
    tiny_sharded,
    weights_file,
)
from tests.hub.standin import StandIn

INDEX_TEXT = tiny_sharded().files["model.safetensors.index.json"].head
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def index(**changes: object) -> Fault:
    """The index with some of its fields changed."""
    return say(json.dumps({**json.loads(INDEX_TEXT), **changes}).encode())


def index_with_shard(name: str) -> Fault:
    """The index with its second shard under another name."""
    return say(INDEX_TEXT.replace(SECOND.encode(), json.dumps(name)[1:-1].encode()))


# Without the endpoint: the index, then the first bytes of each file.
INDEX_ROWS = [
    row(
        "cached index",
        index_with_shard("../../../etc/passwd.safetensors"),
        MalformedHeaderError,
        "inside",
        id="a shard above",
    ),
    row(
        "cached index",
        index_with_shard("/etc/passwd.safetensors"),
        MalformedHeaderError,
        "inside",
        id="an absolute shard",
    ),
    row(
        "cached index",
        index_with_shard("http://evil.example/a.safetensors"),
        MalformedHeaderError,
        "inside",
        id="a shard elsewhere",
    ),
    row(
        "cached index",
        index_with_shard("%2e%2e/a.safetensors"),
        MalformedHeaderError,
        "inside",
        id="a shard above, encoded",
    ),
    row(
        "cached index",
        index_with_shard("a\\..\\b.safetensors"),
        MalformedHeaderError,
        "inside",
        id="a shard above, for Windows",
    ),
    row(
        "cached index",
        index_with_shard("a\x00b.safetensors"),
        MalformedHeaderError,
        "characters",
        id="a shard with a NUL",
    ),
    row(
        "cached index",
        index_with_shard("\x1b[2Jb.safetensors"),
        MalformedHeaderError,
        "characters",
        id="a shard that clears the screen",
    ),
    row(
        "cached index",
        index_with_shard("\u202eb.safetensors"),
        MalformedHeaderError,
        "characters",
        id="a shard that turns the text around",
    ),
    row(
        "cached index",
        index_with_shard("\ud800.safetensors"),
        MalformedHeaderError,
        "characters",
        id="half a surrogate pair",
    ),
    row(
        "cached index",
        index_with_shard("pytorch_model.bin"),
        MalformedHeaderError,
        "no safetensors file",
        id="a pickle as shard",
    ),
    row(
        "cached index",
        index_with_shard("a" * 4_000 + ".safetensors"),
        MalformedHeaderError,
        "too long",
        id="an endless name",
    ),
    row("cached index", index_with_shard(""), MalformedHeaderError, "inside", id="a shard without a name"),
    row(
        "cached index",
        index_with_shard("model-00003-of-00003.safetensors"),
        MalformedHeaderError,
        "1 of 2 shards",
        id="a shard that is not there",
    ),
    row("cached index", index(weight_map={}), MalformedHeaderError, "weight_map", id="an empty weight_map"),
    row("cached index", index(weight_map=[1]), MalformedHeaderError, "weight_map", id="a weight_map that is a list"),
    row(
        "cached index", index(weight_map={"a": 7}), MalformedHeaderError, "no file name", id="a shard that is a number"
    ),
    row("cached index", index(metadata=7), MalformedHeaderError, "metadata", id="metadata that is a number"),
    row("cached index", say(INDEX_TEXT[:-20]), MalformedHeaderError, "JSON", id="an index that ends in the middle"),
    row("cached index", say(NESTED), MalformedHeaderError, "nested", id="an index nested 200,000 deep"),
    row("cached index", say(HTML), MalformedHeaderError, id="a captive portal instead of the index"),
    row("cached index", bomb(), NetworkError, "bytes", id="an index as a bomb"),
    row("cached index", endless(b" " * 1_000_000), NetworkError, "bytes", id="an index without end"),
    row("cached index", times(1, refuse(500)), RIGHT, id="the index fails once"),
    row("resolve index", refuse(500), NetworkError, "500", id="the index fails each time"),
    row(
        "resolve index",
        header("X-Repo-Commit", OTHER_COMMIT),
        NetworkError,
        OTHER_COMMIT,
        id="an index of another commit",
    ),
    row("cached index", silence(60), NetworkError, "--timeout", id="the index never comes"),
]


def shard(header_text: bytes, data: int | None = None) -> Fault:
    """Another file than the shard, its size with it."""
    return as_file(weights_file(header_text, data))


def first_bytes(text: bytes) -> Fault:
    """A first part that begins so and is as long as was asked for."""
    return changed(lambda status, headers, body: (status, headers, (text + body[len(text) :])[: len(body)]))


def content_range(text: str) -> Fault:
    return header("Content-Range", text)


def larger_file(size: int) -> Fault:
    """The first bytes of a file of another size."""
    named = {"Content-Range": f"bytes 0-99999/{size}"}
    return changed(lambda status, headers, body: (status, {**headers, **named}, body.ljust(100_000, b"\0")))


def long_header(length: int) -> bytes:
    return length.to_bytes(8, "little")


RANGES = [
    row("cdn", times(1, hang_up), RIGHT, id="the CDN hangs up once"),
    row("cdn", times(2, refuse(503)), RIGHT, id="the CDN fails twice"),
    row("cdn", refuse(403), NetworkError, "403", id="the signature is not accepted"),
    row("cdn", refuse(404), NetworkError, "404", id="the CDN has lost the file"),
    row("cdn", refuse(500), NetworkError, "500", id="the CDN fails each time"),
    row("cdn", hang_up, NetworkError, id="the CDN hangs up each time"),
    row("cdn", silence(60), NetworkError, "--timeout", id="the CDN never answers"),
    row("cdn", endless(b"a", status=206, pause=0.05), NetworkError, "--timeout", id="the CDN drips"),
    row("cdn", cut(100), NetworkError, id="a part cut off each time"),
    row("cdn", times(1, cut(100)), RIGHT, id="a part cut off once"),
    row("cdn", content_range("bytes 1-100000/152712"), NetworkError, "asked for", id="another part"),
    row("cdn", content_range("bytes 0-10/152712"), NetworkError, "asked for", id="less than the part"),
    row("cdn", content_range("bytes 0-99999/"), NetworkError, "asked for", id="no size"),
    row("cdn", content_range("items 0-99999/152712"), NetworkError, "asked for", id="other units"),
    row("cdn", header("Content-Range", None), NetworkError, "not named", id="no Content-Range"),
    row(
        "cdn",
        larger_file(9_999_999),
        MalformedHeaderError,
        "9,999,999",
        id="another size than the Hub says",
    ),
    row("cdn", content_range("bytes 0-99999/" + "9" * 400), NetworkError, id="a size of 400 digits"),
    row("cdn", header("Content-Encoding", "gzip"), NetworkError, id="a part that claims to be packed"),
    row(
        "cdn", header("Content-Encoding", "zstd"), NetworkError, "not asked for", id="a part in a packing not asked for"
    ),
    row("cdn", refuse(416), NetworkError, "refuses", id="no part is sent at all"),
    row("cdn", refuse(416, Content_Range="bytes */0"), MalformedHeaderError, "0", id="an empty file"),
    row(
        "cdn",
        go_to(lambda handler: handler.path),
        NetworkError,
        "redirected more than",
        id="the CDN redirects to itself",
    ),
    row("cdn", go_to("http://169.254.169.254/"), NetworkError, "link-local", id="the CDN leads to a cloud's metadata"),
    row("cdn", go_to("file:///etc/passwd"), NetworkError, "not followed", id="the CDN leads to a file"),
    row(
        "cdn",
        say(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", 200),
        MalformedHeaderError,
        id="a pointer of LFS",
    ),
    row("cdn", say(HTML, 200), MalformedHeaderError, id="a captive portal instead of weights"),
    row("cdn", first_bytes(long_header(2**64 - 1)), MalformedHeaderError, "claims", id="a header of 2^64 bytes"),
    row(
        "cdn",
        first_bytes(long_header(100_000_001)),
        MalformedHeaderError,
        "100,000,001",
        id="a header over the format's limit",
    ),
    row("cdn", first_bytes(long_header(200_000)), MalformedHeaderError, "200,000", id="a header longer than its file"),
    row("cdn", first_bytes(long_header(0)), MalformedHeaderError, id="a header of no bytes"),
    row("cdn", first_bytes(long_header(500)), MalformedHeaderError, "JSON", id="a header shorter than its text"),
    row(
        "resolve shard",
        header("X-Repo-Commit", OTHER_COMMIT),
        NetworkError,
        OTHER_COMMIT,
        id="a shard of another commit",
    ),
    row(
        "resolve shard", header("X-Linked-Size", "77"), MalformedHeaderError, "77", id="a linked size that is another's"
    ),
    row("resolve shard", header("X-Linked-Size", "many"), RIGHT, id="a linked size that is none"),
    row("resolve shard", refuse(404, "EntryNotFound"), NotFoundError, "does not hold", id="a listed shard is missing"),
    row("resolve shard", refuse(403, "GatedRepo"), GatedError, "ask for access", id="weights gated, config not"),
    row("resolve shard", refuse(429, retry_after=500), NetworkError, "500 seconds", id="limited at the shards"),
    row("resolve shard", times(1, refuse(429, retry_after=0)), RIGHT, id="limited once at the shards"),
    row("tree", refuse(500), RIGHT, id="the list fails, the index serves"),
    row("tree", say(b"[]"), NetworkError, "config.json", id="an empty list"),
]

# A single file: what its header can lie about is the format's, and checkpoint/header.py's.
HEADERS = [
    row("cdn", shard(b"{}", 0), MalformedHeaderError, id="another file of another size"),
    row("cdn", first_bytes(long_header(2152) + b"["), MalformedHeaderError, id="a header that is a list"),
    row("cdn", first_bytes(long_header(2152) + b"\xff"), MalformedHeaderError, id="a header that is not UTF-8"),
    row("cdn", replaced(b'"BF16"', b'"XF16"'), MalformedHeaderError, "XF16", id="an unknown dtype"),
    row(
        "cdn",
        replaced(b"layers.1.mlp.up", b"layers.0.mlp.up"),
        MalformedHeaderError,
        "twice",
        id="a tensor that is twice there",
    ),
    row("cdn", replaced(b'"shape":[64]', b'"shape":[-4]'), MalformedHeaderError, id="a negative dimension"),
    row("cdn", replaced(b'"shape":[256,64]', b'"shape":[256,NaN'), MalformedHeaderError, id="NaN as a dimension"),
]


@pytest.mark.parametrize(
    ("model", "route", "fault", "expected", "words"),
    [*on("org/ranged", INDEX_ROWS, RANGES), *on("org/single", HEADERS)],
)
def test_shards_by_ranges_and_a_single_file(
    hub: StandIn, model: str, route: str, fault: Fault, expected: type[LoraSizeError] | None, words: str
) -> None:
    hub.faults[route] = fault
    check(model, expected, words)
