"""Where an answer of the Hub may send the reader.

The Hub answers /resolve/ with 307 to itself (small files) and 302 to a signed address on another host (LFS and Xet).
What a stranger's mirror may not do: leave http(s), fall from https to http, or aim into the reader's network.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from estimator.errors import NetworkError
from estimator.source.plain import plain

_MAX_ADDRESS = 8_192  # characters
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


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
    reach = _reach(parts.hostname or "")
    nearer = reach - {"global"} - _reach(urlsplit(endpoint).hostname or "")
    nearer |= reach & {"link-local"}
    return f"it leads to a {sorted(nearer)[0]} address" if nearer else None


def _reach(host: str) -> set[str]:
    """How far away a host's addresses are; empty where the name is not known here (a proxy may know it)."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()
    return {_kind(str(address).partition("%")[0]) for address in found}


def _kind(address: str) -> str:
    ip = _inner(ipaddress.ip_address(address))
    if ip.is_loopback or ip.is_unspecified:
        return "loopback"
    if ip.is_link_local:
        return "link-local"
    return "global" if ip.is_global and not ip.is_multicast else "private"


def _inner(ip: Any) -> Any:
    """The IPv4 address that an IPv6 address stands for: mapped, of 6to4, or behind a NAT64 (RFC 6052)."""
    if ip.version == 4:
        return ip
    if ip in _NAT64:
        return ipaddress.ip_address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def _refused(url: str, location: str, reason: str) -> NetworkError:
    return NetworkError(
        f"the Hub's answer redirects to {plain(location, 120)!r}, which is not followed: {plain(reason, 80)}.",
        where=plain(urlsplit(url)._replace(query="").geturl()),
        way_out="check HF_ENDPOINT and the proxy; the Hub itself never answers so",
    )
