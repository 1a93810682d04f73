"""Where an answer may send the reader, and where not."""

from __future__ import annotations

import socket

import pytest

from estimator.errors import NetworkError
from estimator.source.redirects import redirected, watching

HUB = "https://huggingface.co"
ADDRESSES = {
    "huggingface.co": ["18.155.68.1"],
    "cdn-lfs.hf.co": ["18.160.143.1", "2600:9000::1"],
    "rebound.example": ["93.184.216.34", "10.0.0.7"],
    "metadata.internal": ["169.254.169.254"],
    "mirror.corp": ["10.1.2.3"],
    "store.corp": ["10.9.9.9"],
    "localhost": ["127.0.0.1"],
}


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(host: str, port: object, **_: object) -> list[tuple[object, ...]]:
        literal = host.strip("[]")
        known = ADDRESSES.get(host) or ([literal] if literal[:1].isdigit() or ":" in literal else None)
        if known is None:
            raise socket.gaierror(-2, "Name or service not known")
        return [(0, 0, 0, "", (address, 0)) for address in known]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        pytest.param(f"{HUB}/a/b", "/api/resolve-cache/x?y=1", f"{HUB}/api/resolve-cache/x?y=1", id="on the Hub"),
        pytest.param(f"{HUB}/a/b", "c", f"{HUB}/a/c", id="relative"),
        pytest.param(
            f"{HUB}/a", "https://cdn-lfs.hf.co/x?Signature=1", "https://cdn-lfs.hf.co/x?Signature=1", id="CDN"
        ),
        pytest.param("http://huggingface.co/a", f"{HUB}/a", f"{HUB}/a", id="up to https"),
        pytest.param(f"{HUB}/a", "//cdn-lfs.hf.co/x", "https://cdn-lfs.hf.co/x", id="the same scheme"),
        pytest.param(
            f"{HUB}/a", "https://known-to-a-proxy.example/x", "https://known-to-a-proxy.example/x", id="unknown"
        ),
    ],
)
def test_a_redirect_of_the_hub_is_followed(url: str, location: str, target: str) -> None:
    assert redirected(url, location, HUB) == target


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        pytest.param("http://huggingface.co/a", "https to http", id="down to http"),
        pytest.param("http://cdn-lfs.hf.co/a", "https to http", id="down to http elsewhere"),
        pytest.param("file:///etc/passwd", "not an http", id="a file"),
        pytest.param("javascript:alert(1)", "not an http", id="a script"),
        pytest.param("data:text/plain,x", "not an http", id="data"),
        pytest.param("https://127.0.0.1/a", "loopback", id="this machine"),
        pytest.param("https://localhost/a", "loopback", id="this machine by name"),
        pytest.param("https://0.0.0.0/a", "loopback", id="no address"),
        pytest.param("https://[::1]/a", "loopback", id="this machine in IPv6"),
        pytest.param("https://10.0.0.1/a", "private", id="a private network"),
        pytest.param("https://172.16.0.1/a", "private", id="another private network"),
        pytest.param("https://100.64.0.1/a", "private", id="a carrier's network"),
        pytest.param("https://224.0.0.1/a", "private", id="a group of machines"),
        pytest.param("https://169.254.169.254/a", "link-local", id="a cloud's metadata"),
        pytest.param("https://metadata.internal/a", "link-local", id="a cloud's metadata by name"),
        pytest.param("https://rebound.example/a", "private", id="a name with one address outside and one inside"),
        pytest.param("https://[::ffff:10.0.0.1]/a", "private", id="a private network in IPv6"),
        pytest.param("https://[64:ff9b::a00:1]/a", "private", id="a private network behind a NAT64"),
        pytest.param("https://[64:ff9b::a9fe:a9fe]/a", "link-local", id="a cloud's metadata behind a NAT64"),
        pytest.param("https://[64:ff9b:1::a00:1]/a", "private", id="a private network behind a NAT64 of its own"),
        pytest.param("https://[::a9fe:a9fe]/a", "link-local", id="a cloud's metadata in an IPv6 that is compatible"),
        pytest.param("https://[::ffff:0:a9fe:a9fe]/a", "link-local", id="a cloud's metadata, translated"),
        pytest.param("https://[2002:a00:1::]/a", "private", id="a private network in 6to4"),
        pytest.param("https://[::]/a", "loopback", id="no address in IPv6"),
        pytest.param("https://[fc00::1]/a", "private", id="a private network of IPv6"),
        pytest.param("https://[ff02::1]/a", "private", id="a group of machines in IPv6"),
        pytest.param("https://255.255.255.255/a", "private", id="everybody"),
        pytest.param("https://198.18.0.1/a", "private", id="a network for benchmarks"),
        pytest.param("HTTPS://10.0.0.1/a", "private", id="a scheme in capitals"),
        pytest.param("//10.0.0.1/a", "private", id="no scheme"),
        pytest.param("\thttps://10.0.0.1/a", "private", id="a tab before it"),
        pytest.param("ws://huggingface.co/a", "not an http", id="a web socket"),
        pytest.param("unix:///var/run/docker.sock", "not an http", id="a socket"),
        pytest.param("https://user@huggingface.co/a", "user name", id="a user"),
        pytest.param("https://huggingface.co:99999/a", "out of range", id="no port"),
        pytest.param("https://[::1/a", "Invalid", id="half a bracket"),
        pytest.param("https://huggingface.co/\x00", "control", id="a NUL"),
        pytest.param("https://huggingface.co/" + "a" * 9_000, "characters", id="without end"),
    ],
)
def test_a_redirect_elsewhere_is_not_followed(location: str, reason: str) -> None:
    with pytest.raises(NetworkError) as caught:
        redirected(f"{HUB}/org/model/resolve/main/config.json?token=secret", location, HUB)
    assert reason in caught.value.what
    assert "secret" not in caught.value.where


def test_a_mirror_inside_a_network_may_lead_to_its_neighbours_but_not_to_this_machine() -> None:
    mirror = "https://mirror.corp"
    assert redirected(f"{mirror}/a", "https://store.corp/x", mirror) == "https://store.corp/x"
    for location in ("https://localhost/x", "https://metadata.internal/x"):
        with pytest.raises(NetworkError):
            redirected(f"{mirror}/a", location, mirror)


@pytest.mark.parametrize(
    ("connects_to", "address", "refused"),
    [
        pytest.param("cdn-lfs.hf.co", "18.160.143.1", None, id="outside"),
        pytest.param("cdn-lfs.hf.co", "10.0.0.7", "private", id="inside"),
        pytest.param("cdn-lfs.hf.co", "::1", "loopback", id="this machine"),
        pytest.param("cdn-lfs.hf.co", "fe80::1%eth0", "link-local", id="a neighbour"),
        pytest.param("proxy.corp", "10.0.0.7", None, id="a proxy inside"),
    ],
)
def test_a_name_that_leads_inside_at_the_second_look_is_not_asked(
    connects_to: str, address: str, refused: str | None
) -> None:
    class Stream:
        closed = False

        def get_extra_info(self, name: str) -> tuple[str, int] | None:
            return (address, 443) if name == "server_addr" else None

        def close(self) -> None:
            self.closed = True

    hear = watching("cdn-lfs.hf.co", "https://cdn-lfs.hf.co/x?Signature=secret", HUB)
    hear("connection.connect_tcp.started", {"host": connects_to})
    stream = Stream()
    if refused is None:
        hear("connection.connect_tcp.complete", {"return_value": stream})
    else:
        with pytest.raises(NetworkError, match=refused):
            hear("connection.connect_tcp.complete", {"return_value": stream})
    assert stream.closed is (refused is not None)
