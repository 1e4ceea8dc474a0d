"""The addresses of this machine's network interfaces, as they are at the moment of asking."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import ifaddr


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    interface: str
    ip: IPv4Address | IPv6Address
    index: int
    """What the system numbers the interface with; the scope of a link-local IPv6 address."""


def interface_addresses() -> tuple[InterfaceAddress, ...]:
    """Every usable address, loopback and link-local ones included, in the system's order."""
    found = []
    for adapter in ifaddr.get_adapters():
        for address in adapter.ips:
            text = address.ip if isinstance(address.ip, str) else address.ip[0]
            ip = ipaddress.ip_address(text)
            if not ip.is_unspecified and not ip.is_multicast:
                found.append(InterfaceAddress(adapter.name, ip, adapter.index or 0))
    return tuple(found)


def reachable_from_outside(ip: IPv4Address | IPv6Address) -> bool:
    """Whether another machine could mean us by this address, without naming an interface."""
    return not ip.is_loopback and not ip.is_link_local
