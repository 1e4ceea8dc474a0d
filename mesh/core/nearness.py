"""Which of a peer's addresses to dial first."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from kowalski.protocol.ids import Address

Network = IPv4Network | IPv6Network

ON_OUR_NETWORK, PRIVATE, ELSEWHERE, BY_NAME = range(4)


def nearest_first(addresses: Iterable[Address], networks: Iterable[Network]) -> tuple[Address, ...]:
    """Those on one of our networks, then private ones, public ones, and names, which take asking.

    Loopback is among ours: who tells of it runs on this machine. Equally near ones stay in order.
    """
    ours = tuple(networks)
    return tuple(sorted(addresses, key=lambda address: _distance(address, ours)))


def _distance(address: Address, ours: tuple[Network, ...]) -> int:
    ip = _ip_of(address)
    if ip is None:
        return BY_NAME
    if ip.is_loopback or any(ip in network for network in ours):
        return ON_OUR_NETWORK
    return PRIVATE if ip.is_private else ELSEWHERE


def _ip_of(address: Address) -> IPv4Address | IPv6Address | None:
    parts = address.split("/")
    if len(parts) < 3 or parts[1] not in {"ip4", "ip6"}:
        return None
    try:
        return ip_address(parts[2])
    except ValueError:
        return None
