from ipaddress import ip_address

import pytest

from kowalski.mesh.interfaces import interface_addresses, own_networks, reachable_from_outside


def test_loopback_is_among_the_interfaces() -> None:
    assert ip_address("127.0.0.1") in {address.ip for address in interface_addresses()}


def test_every_address_could_be_listened_on() -> None:
    for address in interface_addresses():
        assert not address.ip.is_unspecified
        assert not address.ip.is_multicast
        assert address.interface


def test_every_address_but_those_of_a_link_is_in_one_of_our_networks() -> None:
    networks = own_networks()
    assert any(ip_address("127.9.9.9") in network for network in networks)
    for address in interface_addresses():
        is_of_a_link = address.ip.version == 6 and address.ip.is_link_local
        assert is_of_a_link or any(address.ip in network for network in networks)
    assert not any(ip_address("8.8.4.4") in network for network in networks)


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("192.168.1.7", True),
        ("2001:db8::7", True),
        ("fd00::2", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("169.254.3.4", False),
        ("fe80::1", False),
    ],
)
def test_only_addresses_that_mean_us_elsewhere_are_announced(ip: str, expected: bool) -> None:
    assert reachable_from_outside(ip_address(ip)) is expected
