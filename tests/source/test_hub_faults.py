"""What the Hub, a mirror, a proxy or a stranger's repository can answer wrongly, and what becomes of it.

Every row ends within its bound: right, or with one clean error.
"""

from __future__ import annotations

import json
import time

import pytest

from estimator.checkpoint.index import to_checkpoint
from estimator.errors import (
    GatedError,
    LoraSizeError,
    MalformedConfigError,
    MalformedHeaderError,
    NetworkError,
    NotFoundError,
)
from estimator.source.found import Found
from estimator.source.hub import find_on_hub
from tests.hub.faults import (
    as_file,
    bomb,
    changed,
    cut,
    drip_head,
    endless,
    go_to,
    hang_up,
    header,
    packed,
    raw,
    refuse,
    replaced,
    say,
    silence,
    times,
)
from tests.hub.models import (
    TINY,
    Repo,
    config_file,
    llama,
    tiny_sharded,
    weights_file,
)
from tests.hub.standin import Fault, StandIn

TIMEOUT = 8.0  # seconds given to the Hub
SHORT = 1.0  # seconds, where it never answers
MARGIN = 2.0  # seconds over them in which everything has ended, on a busy machine
RIGHT = None
OTHER_COMMIT = "b" * 40
OTHER_MODEL = llama(3, 64, 160, 256, 32)


def shapes_of(found: Found) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What an estimate would read from the answer."""
    checkpoint = to_checkpoint(found.files, found.index)
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in checkpoint.tensors.values()}


def outcome(id_: str, timeout: float) -> dict[str, tuple[str, tuple[int, ...]]] | LoraSizeError:
    """The answer, or the error that came instead."""
    try:
        return shapes_of(find_on_hub(id_, timeout=timeout))
    except LoraSizeError as error:
        return error


def check(id_: str, expected: type[LoraSizeError] | None, words: str) -> None:
    """The answer is right, or one error of that class with those words; and it has come in time."""
    begun = time.monotonic()
    timeout = SHORT if words == "--timeout" else TIMEOUT
    got = outcome(id_, timeout)
    assert time.monotonic() - begun < timeout + MARGIN
    if not isinstance(got, LoraSizeError):
        assert expected is RIGHT
        assert got == TINY
        return
    shown = f"{got.what} {got.where} {got.way_out}"
    assert expected is not RIGHT, shown
    assert isinstance(got, expected), shown
    assert words in shown
    assert shown.isprintable()
    assert len(shown) < 1_200


CONFIG_TEXT = config_file().head
METADATA = tiny_sharded().metadata["model.safetensors.index.json"]
NESTED = b"[" * 200_000
HTML = b"<html><body>Log in to the guest network <script>alert(1)</script></body></html>"


def row(route: str, fault: Fault, expected: type[LoraSizeError] | None, *words: str, id: str) -> object:  # noqa: A002
    return pytest.param(route, fault, expected, *(words or ("",)), id=id)


# The metadata endpoint is a short cut: where it does not serve, the files themselves answer.
ENDPOINT = [
    row("metadata", refuse(404), RIGHT, id="a mirror that lacks the endpoint"),
    row("metadata", refuse(500), RIGHT, id="the endpoint fails"),
    row("metadata", refuse(503, retry_after=1000), RIGHT, id="the endpoint is down for long"),
    row("metadata", refuse(429, retry_after=1000), RIGHT, id="the endpoint limits the rate"),
    row("metadata", refuse(403, "GatedRepo"), RIGHT, id="the endpoint alone is gated"),
    row("metadata", refuse(401), RIGHT, id="the endpoint alone wants a token"),
    row("metadata", refuse(204), RIGHT, id="the endpoint has nothing to say"),
    row("metadata", hang_up, RIGHT, id="the endpoint hangs up"),
    row("metadata", raw(b"\x16\x03\x01 not http"), RIGHT, id="the endpoint does not speak HTTP"),
    row("metadata", cut(100), RIGHT, id="the endpoint's answer is cut off"),
    row("metadata", say(METADATA[:-30]), RIGHT, id="the endpoint's JSON is cut off"),
    row(
        "metadata",
        say(HTML, headers={"Content-Type": "text/html"}),
        RIGHT,
        id="a captive portal instead of the endpoint",
    ),
    row("metadata", say(b""), RIGHT, id="an empty endpoint answer"),
    row("metadata", say(b"null"), RIGHT, id="null from the endpoint"),
    row("metadata", say(b"[]"), RIGHT, id="a list from the endpoint"),
    row("metadata", say(b"{}"), RIGHT, id="an object without headers"),
    row("metadata", say(b'{"headers":{}}'), RIGHT, id="no headers at all"),
    row("metadata", say(b'{"headers":[1]}'), RIGHT, id="headers as a list"),
    row("metadata", say(b'{"headers":{"a.safetensors":7}}'), RIGHT, id="a header that is a number"),
    row("metadata", say(NESTED), RIGHT, id="nested 200,000 deep"),
    row("metadata", say(b"\xff\xfe" + METADATA), RIGHT, id="not UTF-8"),
    row("metadata", say(METADATA.replace(b"[0,", b"[NaN,", 1)), RIGHT, id="NaN in the answer"),
    row("metadata", say(METADATA.replace(b"[0,", b"[" + b"9" * 6000 + b",", 1)), RIGHT, id="a number of 6,000 digits"),
    row("metadata", packed(METADATA), RIGHT, id="packed with gzip"),
    row("metadata", packed(METADATA, cut_to=60), RIGHT, id="packed and cut off"),
    row("metadata", packed(METADATA, "deflate", "br"), RIGHT, id="packed in a way not asked for"),
    row("metadata", say(METADATA, headers={**{}, "Content-Encoding": "gzip"}), RIGHT, id="claims to be packed"),
    row("metadata", bomb(), RIGHT, id="two gigabytes in two megabytes"),
    row("metadata", endless(b" " * 1_000_000), RIGHT, id="a body without end"),
    row("metadata", endless(b"[]," * 300_000), RIGHT, id="JSON without end"),
    row("metadata", say(b"[" + b"[]," * 5_000_000 + b"[]]"), RIGHT, id="15 MB that would fill the memory"),
    row("metadata", go_to("http://169.254.169.254/latest"), RIGHT, id="redirected to a cloud's metadata service"),
    row("metadata", go_to(lambda handler: handler.path), RIGHT, id="redirected to itself"),
    row("metadata", header("X-Repo-Commit", OTHER_COMMIT), RIGHT, id="pushed between the two answers"),
    row("metadata", silence(60), NetworkError, "--timeout", id="the endpoint never answers"),
    row("metadata", drip_head(), NetworkError, "--timeout", id="the endpoint's headers drip"),
    row(
        "metadata",
        replaced(b'"shape":[64,64]', b'"shape":[64,32]'),
        MalformedHeaderError,
        "needs",
        id="a shape that does not fit its bytes",
    ),
    row(
        "metadata",
        replaced(b"model-00002-of-00002.safetensors", b"../../other-of-00002.safetensors"),
        MalformedHeaderError,
        "inside the repository",
        id="the endpoint names a path outside",
    ),
    row(
        "metadata",
        replaced(b"00002-of-00002", b"00003-of-00003"),
        MalformedHeaderError,
        "00003-of-00003",
        id="the endpoint names a shard that is not listed",
    ),
    row(
        "metadata",
        say(Repo("x/y", {**tiny_sharded().files}).metadata["model.safetensors.index.json"].replace(b"BF16", b"F32")),
        MalformedHeaderError,
        id="dtypes of another model",
    ),
]

# config.json names the commit and holds the architecture: without it there is no answer.
CONFIG_ROWS = [
    row(
        "resolve config", refuse(401, "RepoNotFound"), NotFoundError, "hf auth login", id="missing or private, no token"
    ),
    row("resolve config", refuse(404, "RepoNotFound"), NotFoundError, "org/tiny", id="missing"),
    row("resolve config", refuse(401, "GatedRepo"), GatedError, "ask for access at", id="gated, no token"),
    row("resolve config", refuse(403, "GatedRepo"), GatedError, "ask for access at", id="gated, asked but not granted"),
    row("resolve config", refuse(403, "", "Forbidden by policy"), GatedError, "Forbidden by policy", id="forbidden"),
    row("resolve config", refuse(404, "RevisionNotFound"), NotFoundError, "no revision", id="no such revision"),
    row(
        "resolve config",
        refuse(401, "", "Invalid credentials in Authorization header"),
        GatedError,
        "does not accept",
        id="bad token",
    ),
    row("resolve config", refuse(400), NetworkError, "400", id="bad request"),
    row("resolve config", refuse(410), NetworkError, "410", id="gone"),
    row("resolve config", refuse(451, "", "Unavailable for legal reasons"), NetworkError, "legal", id="legal reasons"),
    row("resolve config", refuse(418), NetworkError, "418", id="a teapot"),
    row("resolve config", refuse(500), NetworkError, "500", id="fails each time"),
    row("resolve config", times(1, refuse(500)), RIGHT, id="fails once"),
    row("resolve config", times(2, refuse(502)), RIGHT, id="a bad gateway twice"),
    row("resolve config", times(1, refuse(503, retry_after=0)), RIGHT, id="down for a moment"),
    row("resolve config", times(1, refuse(429, Retry_After="0")), RIGHT, id="limited for a moment"),
    row("resolve config", refuse(429, retry_after=7200), NetworkError, "7,200 seconds", id="limited for two hours"),
    row("resolve config", refuse(429, retry_after="9" * 5000), NetworkError, "rate limit", id="limited for ever"),
    row(
        "resolve config",
        refuse(429, retry_after="Wed, 21 Oct 2099 07:28:00 GMT"),
        NetworkError,
        "seconds",
        id="limited till a date",
    ),
    row("resolve config", refuse(429, retry_after="soon"), NetworkError, "rate limit", id="limited for nonsense"),
    row(
        "resolve config",
        refuse(429, ratelimit='"api";r=0;t=300'),
        NetworkError,
        "300 seconds",
        id="limited, in the draft's words",
    ),
    row("resolve config", times(1, hang_up), RIGHT, id="hangs up once"),
    row("resolve config", hang_up, NetworkError, "not reached", id="hangs up each time"),
    row("resolve config", raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000), NetworkError, id="headers without end"),
    row("resolve config", raw(b"HTTP/1.1 999 \x1b[31mred\r\n\r\n"), NetworkError, id="an unknown status"),
    row(
        "resolve config", raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}"), NetworkError, id="a negative length"
    ),
    row(
        "resolve config",
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
        NetworkError,
        id="two lengths",
    ),
    row("resolve config", raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 50_000), NetworkError, id="continue, continue"),
    row("resolve config", silence(60), NetworkError, "--timeout", id="config never answers"),
    row("resolve config", drip_head(), NetworkError, "--timeout", id="config's headers drip"),
    row("resolve config", refuse(307), NetworkError, "307", id="a redirect to nowhere"),
    row("resolve config", go_to("file:///etc/passwd"), NetworkError, "not followed", id="redirected to a file"),
    row("resolve config", go_to("ftp://example.com/config.json"), NetworkError, "not followed", id="redirected to ftp"),
    row("resolve config", go_to("gopher://127.0.0.1:70/"), NetworkError, "not followed", id="redirected to gopher"),
    row(
        "resolve config",
        go_to("http://10.0.0.1/config.json"),
        NetworkError,
        "private",
        id="redirected into a private network",
    ),
    row("resolve config", go_to("http://192.168.1.1/"), NetworkError, "private", id="redirected to a router"),
    row(
        "resolve config", go_to("http://[fd00::1]/"), NetworkError, "private", id="redirected to a private IPv6 address"
    ),
    row(
        "resolve config",
        go_to("http://[fe80::1]/"),
        NetworkError,
        "link-local",
        id="redirected to a link-local address",
    ),
    row(
        "resolve config",
        go_to("http://[::ffff:169.254.169.254]/"),
        NetworkError,
        "link-local",
        id="an IPv4 address in IPv6",
    ),
    row(
        "resolve config",
        go_to("http://2852039166/latest"),
        NetworkError,
        "link-local",
        id="an address written as one number",
    ),
    row(
        "resolve config",
        go_to("http://user:pass@127.0.0.1/"),
        NetworkError,
        "password",
        id="redirected with a password",
    ),
    row(
        "resolve config",
        go_to("http://127.0.0.1:99999/"),
        NetworkError,
        "not followed",
        id="redirected to a port that is none",
    ),
    row("resolve config", go_to("http://:80/config.json"), NetworkError, "not followed", id="redirected to no host"),
    row("resolve config", go_to("/x" * 9_000), NetworkError, "not followed", id="redirected to an endless address"),
    row(
        "resolve config",
        go_to(lambda handler: handler.path),
        NetworkError,
        "redirected more than",
        id="config redirected to itself",
    ),
    row("resolve config", header("X-Repo-Commit", "../../../etc"), RIGHT, id="a commit that is none"),
    row(
        "cached config",
        header("X-Repo-Commit", OTHER_COMMIT),
        NetworkError,
        OTHER_COMMIT,
        id="config of another commit",
    ),
    row("cached config", refuse(404, "EntryNotFound"), NotFoundError, id="config vanishes behind its redirect"),
    row("cached config", refuse(500), NetworkError, "500", id="config fails behind its redirect"),
    row("cached config", times(1, cut(20)), RIGHT, id="config cut off once"),
    row("cached config", cut(20), NetworkError, id="config cut off each time"),
    row("cached config", say(CONFIG_TEXT[:40]), MalformedConfigError, "JSON", id="config ends in the middle"),
    row(
        "cached config",
        say(HTML, headers={"Content-Type": "text/html"}),
        MalformedConfigError,
        id="a captive portal instead of config",
    ),
    row("cached config", say(b""), MalformedConfigError, id="an empty config"),
    row("cached config", say(b"[]"), MalformedConfigError, "list", id="config is a list"),
    row("cached config", say(b"null"), MalformedConfigError, id="config is null"),
    row("cached config", say(NESTED), MalformedConfigError, "nested", id="config nested 200,000 deep"),
    row(
        "cached config",
        say(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
        MalformedConfigError,
        id="objects nested 50,000 deep",
    ),
    row(
        "cached config",
        say(b'{"hidden_size":' + b"9" * 6_000 + b"}"),
        MalformedConfigError,
        id="a size of 6,000 digits",
    ),
    row("cached config", say(b'{"hidden_size":"large"}'), MalformedConfigError, "hidden_size", id="a size in words"),
    row("cached config", say(b'{"architectures":"\\u001b[31m"}'), MalformedConfigError, id="escape codes in config"),
    row(
        "cached config",
        say(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        MalformedConfigError,
        id="a pointer",
    ),
    row("cached config", say(b" " * 30_000_000 + CONFIG_TEXT), MalformedConfigError, "too large", id="30 MB of config"),
    row("cached config", endless(b" " * 1_000_000), MalformedConfigError, "too large", id="config without end"),
    row("cached config", bomb(), MalformedConfigError, "too large", id="config as a bomb"),
    row("cached config", packed(CONFIG_TEXT), RIGHT, id="config packed"),
    row("cached config", endless(b"a", pause=0.05), NetworkError, "--timeout", id="config drips"),
]

# The list of files: needed only where the endpoint does not serve.
LIST = [
    row("tree", refuse(500), RIGHT, id="the list fails, the endpoint serves"),
    row("tree", refuse(404), RIGHT, id="a mirror without lists"),
    row("tree", say(HTML), RIGHT, id="HTML instead of the list"),
    row("tree", say(b"{}"), RIGHT, id="an object instead of the list"),
    row("tree", say(b'[{"path":7}]'), RIGHT, id="a path that is a number"),
    row("tree", say(b'[{"type":"file","path":"a","size":-1}]'), RIGHT, id="a negative size in the list"),
    row("tree", silence(60), RIGHT, id="the list never comes, the endpoint serves"),
    row("tree", header("Link", '<http://169.254.169.254/>; rel="next"'), RIGHT, id="the next page is on another host"),
    row(
        "tree",
        changed(lambda s, h, b: (s, h, b.replace(b'"size":1527', b'"size":2527'))),
        MalformedHeaderError,
        "list of files",
        id="sizes of other files",
    ),
    row(
        "tree",
        replaced(b"model-00002-of-00002.safetensors", b"model-00002-of-00009.safetensors"),
        MalformedHeaderError,
        "list of files has no such file",
        id="a described shard is not listed",
    ),
]


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


@pytest.mark.parametrize(("route", "fault", "expected", "words"), [*ENDPOINT, *CONFIG_ROWS, *LIST])
def test_a_sharded_model(
    hub: StandIn, route: str, fault: Fault, expected: type[LoraSizeError] | None, words: str
) -> None:
    hub.faults[route] = fault
    check("org/tiny", expected, words)


@pytest.mark.parametrize(("route", "fault", "expected", "words"), [*INDEX_ROWS, *RANGES])
def test_a_sharded_model_by_ranges(
    hub: StandIn, route: str, fault: Fault, expected: type[LoraSizeError] | None, words: str
) -> None:
    hub.faults[route] = fault
    check("org/ranged", expected, words)


@pytest.mark.parametrize(("route", "fault", "expected", "words"), HEADERS)
def test_a_single_file(
    hub: StandIn, route: str, fault: Fault, expected: type[LoraSizeError] | None, words: str
) -> None:
    hub.faults[route] = fault
    check("org/single", expected, words)
