"""Where an answer of the Hub may send the reader.

The Hub answers /resolve/ with 307 to itself (small files) and 302 to a signed address on another host (LFS and Xet).
What a stranger's mirror may not do: leave http(s), fall from https to http, or aim into the reader's network.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from estimator.errors import NetworkError
from estimator.source.plain import plain

_MAX_ADDRESS = 8_192  # characters
_PORTS = {"http": 80, "https": 443}
# Where the last 32 bits are an IPv4 address: NAT64 (RFC 6052), translated (RFC 2765), compatible (RFC 4291).
_AROUND_IPV4 = [ipaddress.ip_network(network) for network in ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96")]
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port that `url` is served by. Raises ValueError where it has none."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("not an http or https address")
    return parts.scheme, parts.hostname.lower(), parts.port or _PORTS[parts.scheme]


def redirected(url: str, location: str, endpoint: str) -> str:
    """The address that `location` in an answer of `url` leads to. Raises NetworkError where nobody should follow."""
    try:
        target = urljoin(url, location.strip())
        parts = urlsplit(target)
        elsewhere = origin(target) not in (origin(url), origin(endpoint))
    except ValueError as error:
        raise _refused(url, location, str(error)) from error
    reason = _fault(target, parts, url) or (_inside(parts, endpoint) if elsewhere else None)
    if reason:
        raise _refused(url, location, reason)
    return target


def watching(host: str, url: str, endpoint: str) -> Callable[[str, Mapping[str, Any]], None]:
    """What hears how the connection to `host` for `url` is made (httpcore's `trace`).

    A name may lead elsewhere when the connection looks it up once more. Raises NetworkError where it leads inside.
    """
    to_host = False

    def hear(event: str, told: Mapping[str, Any]) -> None:
        nonlocal to_host
        if event == "connection.connect_tcp.started":
            to_host = told["host"] == host  # and not to a proxy
        elif event == "connection.connect_tcp.complete" and to_host:
            stream = told["return_value"]
            reason = _too_near({_kind(stream.get_extra_info("server_addr")[0])}, endpoint)
            if reason:
                stream.close()
                raise _refused(endpoint, url, reason)

    return hear


def _fault(target: str, parts: SplitResult, url: str) -> str | None:
    if len(target) > _MAX_ADDRESS:
        return f"an address of {len(target):,} characters"
    if any(ord(letter) < 33 or ord(letter) == 127 for letter in target):
        return "the address holds control characters"
    if url.startswith("https:") and parts.scheme != "https":
        return "it falls from https to http"
    if parts.username is not None or parts.password is not None:
        return "the address carries a user name or password"
    return None


def _inside(parts: SplitResult, endpoint: str) -> str | None:
    """A reason where the host is nearer to the reader than the Hub itself is: its own machine or its network."""
    return _too_near(_reach(parts.hostname or ""), endpoint)


def _too_near(reach: set[str], endpoint: str) -> str | None:
    if reach <= {"global"}:
        return None
    nearer = reach - {"global"} - _reach(urlsplit(endpoint).hostname or "")
    nearer |= reach & {"link-local"}
    return f"it leads to a {sorted(nearer)[0]} address" if nearer else None


def _reach(host: str) -> set[str]:
    """How far away a host's addresses are; empty where the name is not known here (a proxy may know it)."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()
    return {_kind(str(address)) for address in found}


def _kind(address: str) -> str:
    whole = ipaddress.ip_address(address.partition("%")[0])
    ip = _inner(whole)
    if any(one.is_loopback or one.is_unspecified for one in (whole, ip)):
        return "loopback"
    if ip.is_link_local:
        return "link-local"
    return "global" if ip.is_global and not ip.is_multicast and ip not in _LOCAL_NAT64 else "private"


def _inner(ip: Any) -> Any:
    """The IPv4 address that an IPv6 address stands for: mapped, of 6to4, or in the last bits of one."""
    if ip.version == 4:
        return ip
    if any(ip in network for network in _AROUND_IPV4):
        return ipaddress.ip_address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def _refused(url: str, location: str, reason: str) -> NetworkError:
    return NetworkError(
        f"the Hub's answer redirects to {plain(location, 120)!r}, which is not followed: {plain(reason, 80)}.",
        where=plain(urlsplit(url)._replace(query="").geturl()),
        way_out="check HF_ENDPOINT and the proxy; the Hub itself never answers so",
    )
