"""The metadata endpoint and the list of files answer wrongly.

Every row ends within its bound: right, or with one clean error.
"""

from __future__ import annotations

import pytest

from estimator.errors import (
    LoraSizeError,
    MalformedHeaderError,
)
from tests.hub.checks import HTML, METADATA, NESTED, OTHER_COMMIT, RIGHT, check, row
from tests.hub.faults import (
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
)
from tests.hub.handler import Fault
from tests.hub.models import (
    Repo,
    tiny_sharded,
)
from tests.hub.standin import StandIn

_HEADERS = b'{"headers":{"a.safetensors":{'
_FIRST, _SECOND = METADATA.index(b'"model-00001'), METADATA.index(b'"model-00002')
_TWICE = METADATA[:_SECOND] + METADATA[_FIRST:]  # the first shard once more

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
    row("metadata", say(_TWICE), MalformedHeaderError, "is given twice", id="a shard that the endpoint gives twice"),
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
    row("metadata", say(_HEADERS + b'"' * 5_000_000 + b"}}}"), RIGHT, id="5 MB of names that begin"),
    row(
        "metadata",
        say(_HEADERS + b'"' + b".1" * 2_500_000 + b'":{}}}}'),
        MalformedHeaderError,
        "a.safetensors",
        id="a name of 2.5 million indices",
    ),
    row("metadata", say(_HEADERS + b'"b.safetensors":{' * 200_000 + b"}}"), RIGHT, id="200,000 shards that begin"),
    row("metadata", go_to("http://169.254.169.254/latest"), RIGHT, id="redirected to a cloud's metadata service"),
    row("metadata", go_to(lambda handler: handler.path), RIGHT, id="redirected to itself"),
    row("metadata", header("X-Repo-Commit", OTHER_COMMIT), RIGHT, id="pushed between the two answers"),
    row("metadata", silence(60), RIGHT, "--timeout", id="the endpoint never answers"),
    row("metadata", drip_head(), RIGHT, "--timeout", id="the endpoint's headers drip"),
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


@pytest.mark.parametrize(("route", "fault", "expected", "words"), [*ENDPOINT, *LIST])
def test_the_endpoint_or_the_list(
    hub: StandIn, route: str, fault: Fault, expected: type[LoraSizeError] | None, words: str
) -> None:
    hub.faults[route] = fault
    check("org/tiny", expected, words)


@pytest.mark.parametrize("tree", [refuse(500), silence(60)])
def test_without_a_list_the_endpoint_proves_nothing(hub: StandIn, tree: Fault) -> None:
    hub.faults["tree"] = tree
    hub.faults["metadata"] = replaced(b"[256,64]", b"[64,256]")
    check("org/tiny", RIGHT, "")
