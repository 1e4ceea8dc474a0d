"""What peers see of a node's clock and addresses, asked of whole nodes under virtual time."""

from __future__ import annotations

import pytest

from kowalski.node.services.reach import PROTOCOL, checks_by_peers
from kowalski.protocol.errors import RequestRefusedError
from kowalski.protocol.ids import Address
from kowalski.protocol.messages.reach import ReachAsked, ReachTold
from simulations.places import UNIX_EPOCH_S
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.services.prompts import ASKER, WORKER

pytestmark = pytest.mark.trio

NOBODY = Address("/ip4/192.0.2.1/tcp/4170")


async def test_a_peer_says_where_it_finds_us_and_what_its_clock_shows(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, WORKER]) as world:
        checks = await checks_by_peers(
            world[0].mesh, lambda: UNIX_EPOCH_S + world.wires.now() - 90.0
        )
        offset, reached = checks
        assert (offset.name, offset.verdict) == ("clock of peers", "warn")
        assert "90.0 s behind" in offset.found
        assert (reached.name, reached.verdict) == ("reachable", "ok")
        assert f"/memory/{world.peer(0)}" in reached.found


async def test_only_the_asker_itself_is_found_and_not_twice_in_a_row(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, WORKER, WORKER]) as world:
        asked = ReachAsked(
            addresses=(*(Address(f"/memory/{world.peer(n)}") for n in (0, 2)), NOBODY)
        )
        mesh, peer = world[0].mesh, world.peer(1)
        told = await mesh.request(peer, PROTOCOL, asked, ReachTold, timeout_s=10)
        assert told.reached == (Address(f"/memory/{world.peer(0)}"),)
        assert told.received_unix_s <= told.sent_unix_s
        with pytest.raises(RequestRefusedError, match="busy") as no:
            await mesh.request(peer, PROTOCOL, asked, ReachTold, timeout_s=10)
        assert no.value.retry_after_s is not None
        assert 0 < no.value.retry_after_s <= 5
        assert world[0].mesh.is_routable(peer)


async def test_alone_there_is_nobody_to_ask(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER]) as world:
        assert await checks_by_peers(world[0].mesh, lambda: 0.0) == []
