"""Addresses of nobody: well announced, and dialled in vain."""

from __future__ import annotations

import random

import pytest
import trio

from kowalski.mesh.discovery import ADDRESSES_MAX, parse_txt
from kowalski.protocol.errors import PeerUnreachableError
from kowalski.protocol.ids import Address, MeshId
from simulations.nowhere import BLACK_HOLE, REFUSED_AFTER_S, REFUSING, lead_nowhere, lies_about
from simulations.virtual_time import JumpingClock
from tests.simulations.looking import PEERS

MESH = MeshId("a" * 32)


def test_lies_are_announcements_as_a_peer_would_make_them_and_others_each_time() -> None:
    dice = random.Random(1)
    one, other = (parse_txt(lies_about(PEERS[0], MESH, dice)) for _ in range(2))
    assert one is not None
    assert other is not None
    assert (one.peer, one.mesh) == (PEERS[0], MESH)
    assert 1 < len(one.addresses) <= ADDRESSES_MAX
    assert not set(one.addresses) & set(other.addresses)


@pytest.mark.trio
@pytest.mark.parametrize(("net", "after_s"), [(BLACK_HOLE, 3.0), (REFUSING, REFUSED_AFTER_S)])
async def test_one_answers_nothing_and_the_other_refuses(
    net: str, after_s: float, virtual_time: JumpingClock
) -> None:
    began = trio.current_time()
    with pytest.raises(PeerUnreachableError, match="nobody answers"):
        await lead_nowhere(Address(f"{net}7/tcp/1"), timeout_s=3.0)
    assert trio.current_time() - began == pytest.approx(after_s)
