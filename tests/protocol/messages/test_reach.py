"""How a node looks from outside, on the wire."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kowalski.protocol.ids import Address
from kowalski.protocol.messages.reach import DIALLED_MAX, ReachAsked, ReachTold

NOW = 1_764_240_000.25


def test_no_more_addresses_are_asked_about_than_a_peer_will_dial() -> None:
    addresses = tuple(Address(f"/ip4/192.168.1.7/tcp/{port}") for port in range(DIALLED_MAX))
    assert ReachAsked(addresses=addresses).addresses == addresses
    with pytest.raises(ValidationError):
        ReachAsked(addresses=(*addresses, Address("/ip4/192.168.1.7/tcp/4170")))


@pytest.mark.parametrize("clock", [-1.0, 1e13, float("nan"), float("inf")])
def test_a_clock_that_no_machine_can_show_is_refused(clock: float) -> None:
    ReachTold(received_unix_s=NOW, sent_unix_s=NOW)
    with pytest.raises(ValidationError):
        ReachTold(received_unix_s=clock, sent_unix_s=NOW)
    with pytest.raises(ValidationError):
        ReachTold(received_unix_s=NOW, sent_unix_s=clock)
