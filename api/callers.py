"""Who asks, by the address that counts: the peer's or, behind proxies of ours, the one that they name."""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import Scope

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOPS = 20
"""More proxies in a row than these are nobody's."""
_A_SUBSCRIBERS_BITS = 64
"""An IPv6 subscriber has at least so many bits of addresses to choose from (RFC 6177): all of them are one client."""


def client_of(scope: Scope, trusted: Sequence[Network]) -> str:
    """The client of a request, as limits count clients.

    From the peer backwards through what proxies added, the first address that is neither this machine's nor in
    ``trusted``. What a client writes into those headers itself stands before what our proxies add, and counts for
    nothing. ``Forwarded`` (RFC 7239) is read where there is one, else ``X-Forwarded-For``.
    """
    peer = scope["client"][0] if scope.get("client") else ""
    known = _address(peer)
    if known is None:
        return peer or "unknown"
    for named in _named_last_first(Headers(scope=scope)):
        if not _is_ours(known, trusted):
            break
        found = _address(named)
        if found is None:
            # Hidden or unreadable: whoever it is, the proxy that says so stands for them.
            break
        known = found
    return _as_one(known)


def _named_last_first(headers: Headers) -> Iterator[str]:
    forwarded = headers.getlist("forwarded")
    # Some proxies add to a line, others add a line: together they are one list.
    entries = ",".join(forwarded or headers.getlist("x-forwarded-for")).split(",")[-_HOPS:]
    for entry in reversed(entries):
        yield _of_forwarded(entry) if forwarded else entry


def _of_forwarded(entry: str) -> str:
    for pair in entry.split(";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
            return value.strip().strip('"')
    return ""


@lru_cache(1024)
def _address(text: str) -> _Address | None:
    """An address without port and brackets; one of IPv4 also where it is written as IPv6."""
    text = text.strip()[:64]
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _is_ours(address: _Address, trusted: Iterable[Network]) -> bool:
    return address.is_loopback or any(address in network for network in trusted)


def _as_one(address: _Address) -> str:
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.ip_network((address, _A_SUBSCRIBERS_BITS), strict=False).network_address)
