"""Where the token goes, and where not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from estimator.errors import (
    GatedError,
    LoraSizeError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from estimator.source.hub import find_on_hub
from tests.hub.checks import shapes_of
from tests.hub.faults import go_to, header, refuse, say
from tests.hub.handler import Fault, Handler
from tests.hub.models import (
    TINY,
    tiny_sharded,
    tiny_single,
)
from tests.hub.standin import TOKEN, StandIn


def everything_kept(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("id_", ["org/secret", "org/secret-single"])
def test_the_token_goes_to_the_hub_alone(hub: StandIn, tmp_path: Path, id_: str) -> None:
    hub.add(tiny_sharded("org/secret", private=True, endpoint=False))
    hub.add(tiny_single("org/secret-single", private=True))
    with pytest.raises(NotFoundError):
        find_on_hub(id_)
    hub.seen.clear()
    assert shapes_of(find_on_hub(id_, token=TOKEN)) == TINY
    sent = {seen.server: seen.headers.get("authorization") or seen.headers.get("Authorization") for seen in hub.seen}
    assert sent == {"hub": f"Bearer {TOKEN}", "cdn": None}
    assert TOKEN.encode() not in everything_kept(tmp_path)


def test_the_token_of_the_environment_is_used(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(tiny_sharded("org/gated", gated=True))
    with pytest.raises(GatedError) as caught:
        find_on_hub("org/gated")
    assert f"{hub.endpoint}/org/gated" in caught.value.way_out
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert shapes_of(find_on_hub("org/gated")) == TINY


def test_the_token_of_the_login_is_used(hub: StandIn, tmp_path: Path) -> None:
    hub.add(tiny_sharded("org/gated", gated=True))
    (tmp_path / "token").write_text(TOKEN + "\n")
    assert shapes_of(find_on_hub("org/gated")) == TINY


def test_the_implicit_token_can_be_switched_off(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    find_on_hub("org/tiny")
    assert not any("authorization" in map(str.lower, seen.headers) for seen in hub.seen)


def test_a_server_that_echoes_the_token_does_not_get_it_printed(hub: StandIn) -> None:
    hub.faults["resolve config"] = refuse(403, "", f"Bearer {TOKEN} may not do this")
    with pytest.raises(GatedError) as caught:
        find_on_hub("org/tiny", token=TOKEN)
    assert TOKEN not in str(caught.value.what)
    assert "<token>" in caught.value.what


def _echo(form: bytes) -> Fault:
    """A server that puts what it was sent into its answer's frame, where `%s` stands."""

    def fault(handler: Handler, right: Callable[[], None]) -> None:
        handler.wfile.write(form % handler.headers["Authorization"].split()[1].encode())
        handler.close_connection = True

    return fault


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(b"NOHTTP %s\r\n\r\n", id="status line"),
        pytest.param(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n", id="header line"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n", id="length of a chunk"),
    ],
)
def test_an_answer_that_is_no_http_does_not_get_the_token_printed(hub: StandIn, form: bytes) -> None:
    hub.faults["cached config"] = _echo(form)
    with pytest.raises(NetworkError) as caught:
        find_on_hub("org/tiny", token=TOKEN)
    assert TOKEN not in caught.value.what
    assert "<token>" in caught.value.what


def test_a_config_that_repeats_the_token_in_escapes_is_not_read(hub: StandIn) -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in TOKEN)
    hub.faults["cached config"] = say(b'{"architectures":["%s"]}' % escaped.encode())
    with pytest.raises(NetworkError, match="repeats the token"):
        find_on_hub("org/tiny", token=TOKEN)


@pytest.mark.parametrize("token", ["hf_a\r\nX-Evil: 1", "hf_\u00e9", "hf a"])
def test_a_token_that_is_none(hub: StandIn, token: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_on_hub("org/tiny", token=token)
    assert token not in f"{caught.value.what}{caught.value.where}{caught.value.way_out}"
    assert hub.seen == []


@pytest.mark.parametrize(
    "route", ["metadata", "resolve config", "cached config", "tree", "resolve index", "resolve shard"]
)
def test_a_redirect_to_a_stranger_carries_no_token(hub: StandIn, route: str) -> None:
    hub.add(tiny_sharded("org/secret", private=True, endpoint=False))
    hub.faults[route] = go_to(f"{hub.cdn}/org/steal/this?Signature=1")
    with contextlib.suppress(LoraSizeError):
        find_on_hub("org/secret", token=TOKEN)
    asked = [seen for seen in hub.seen if seen.path.startswith("/org/steal")]
    assert asked
    assert not any("authorization" in map(str.lower, seen.headers) for seen in asked)


def test_the_next_page_of_a_list_is_not_asked_of_a_stranger(hub: StandIn) -> None:
    hub.faults["tree"] = header("Link", f'<{hub.cdn}/org/steal/this>; rel="next"')
    hub.add(tiny_single("org/secret", private=True))
    with contextlib.suppress(LoraSizeError):
        find_on_hub("org/secret", token=TOKEN)
    assert not any(seen.path.startswith("/org/steal") for seen in hub.seen)


def test_cookies_go_nowhere(hub: StandIn) -> None:
    hub.faults["resolve config"] = header("Set-Cookie", "session=secret; Path=/")
    find_on_hub("org/ranged")
    find_on_hub("org/single")
    assert not any("cookie" in map(str.lower, seen.headers) for seen in hub.seen)


def test_another_port_of_the_hubs_host_is_a_stranger(hub: StandIn) -> None:
    hub.add(tiny_single("org/secret", private=True))
    hub.cdn = hub.cdn.replace("localhost", "127.0.0.1")
    assert shapes_of(find_on_hub("org/secret", token=TOKEN)) == TINY
    at_cdn = [seen for seen in hub.seen if seen.server == "cdn"]
    assert at_cdn
    assert not any("authorization" in map(str.lower, seen.headers) for seen in at_cdn)


def test_where_a_name_leads_is_looked_at_before_anything_is_sent(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("estimator.source.redirects._inside", lambda parts, endpoint: None)
    monkeypatch.setattr("estimator.source.redirects._kind", lambda address: "link-local")
    with pytest.raises(NetworkError, match="link-local"):
        find_on_hub("org/single")
    assert not any(seen.server == "cdn" for seen in hub.seen)
