"""The addresses of this machine's network interfaces, as they are at the moment of asking."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import ifaddr


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    interface: str
    ip: IPv4Address | IPv6Address
    index: int
    """What the system numbers the interface with; the scope of a link-local IPv6 address."""
    prefix: int
    """How many leading bits all addresses of its network share."""


def interface_addresses() -> tuple[InterfaceAddress, ...]:
    """Every usable address, loopback and link-local ones included, in the system's order."""
    found = []
    for adapter in ifaddr.get_adapters():
        for address in adapter.ips:
            text = address.ip if isinstance(address.ip, str) else address.ip[0]
            ip = ipaddress.ip_address(text)
            if not ip.is_unspecified and not ip.is_multicast:
                found.append(
                    InterfaceAddress(adapter.name, ip, adapter.index or 0, address.network_prefix)
                )
    return tuple(found)


def own_networks() -> tuple[IPv4Network | IPv6Network, ...]:
    """Those that this machine has an address in; of IPv6, none of link-local scope."""
    return tuple(
        ipaddress.ip_network((one.ip, one.prefix), strict=False)
        for one in interface_addresses()
        if not (one.ip.version == 6 and one.ip.is_link_local)
    )


def reachable_from_outside(ip: IPv4Address | IPv6Address) -> bool:
    """Whether another machine could mean us by this address, without naming an interface."""
    return not ip.is_loopback and not ip.is_link_local
