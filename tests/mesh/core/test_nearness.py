from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.nearness import nearest_first
from kowalski.protocol.ids import Address

OURS = (ip_network("192.168.1.0/24"), ip_network("fd00:1::/64"))
BESIDE_US = Address("/ip4/192.168.1.9/tcp/4170")
BESIDE_US_BY_IPV6 = Address("/ip6/fd00:1::9/tcp/4170")
SAME_MACHINE = Address("/ip4/127.0.0.1/tcp/4170")
BEHIND_A_VPN = Address("/ip4/10.8.0.9/tcp/4170")
PUBLIC = Address("/ip4/8.8.4.4/tcp/4170")
BY_NAME = Address("/dns4/desk.example.org/tcp/4170")

some = st.permutations([BESIDE_US, BESIDE_US_BY_IPV6, SAME_MACHINE, BEHIND_A_VPN, PUBLIC, BY_NAME])


def test_our_own_network_comes_before_private_public_and_named_addresses() -> None:
    told = (BY_NAME, PUBLIC, BEHIND_A_VPN, BESIDE_US)
    assert nearest_first(told, OURS) == (BESIDE_US, BEHIND_A_VPN, PUBLIC, BY_NAME)


@given(some)
def test_whatever_the_order_near_ones_come_first_and_none_is_lost(told: list[Address]) -> None:
    found = nearest_first(told, OURS)
    assert set(found[:3]) == {BESIDE_US, BESIDE_US_BY_IPV6, SAME_MACHINE}
    assert found[3:] == (BEHIND_A_VPN, PUBLIC, BY_NAME)
    assert nearest_first(found, OURS) == found


@given(some)
def test_equally_near_ones_stay_in_the_order_in_which_they_were_told(told: list[Address]) -> None:
    near = (BESIDE_US, BESIDE_US_BY_IPV6, SAME_MACHINE)
    found = nearest_first(told, OURS)
    assert [one for one in found if one in near] == [one for one in told if one in near]


def test_an_address_of_another_kind_is_dialled_last() -> None:
    odd = Address("/memory/12D3")
    assert nearest_first((odd, PUBLIC), ()) == (PUBLIC, odd)
