"""A node that may coordinate leads and stands by; one that may not does neither."""

from __future__ import annotations

import pytest

from kowalski.node.services import coordinator, copies
from kowalski.protocol.errors import PeerUnreachableError, RequestRefusedError
from kowalski.protocol.messages import copies as wire
from kowalski.rlm.journal import GENESIS
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER
from tests.node.services.test_coordinator import grant
from tests.node.services.test_copies import TASK

pytestmark = pytest.mark.trio


def an_offer(world: World) -> wire.CopyOffered:
    return wire.CopyOffered(task=TASK, term=1, submitter=world.peer(0), start=0, parent=GENESIS)


async def test_who_coordinates_serves_submitters_and_other_coordinators(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER]) as world:
        assert world[1].leading is not None
        mesh = world[0].mesh
        async with mesh.converse(world.peer(1), coordinator.PROTOCOL, grant(1)) as talk:
            await talk.receive()
        async with mesh.converse(world.peer(1), copies.PROTOCOL, an_offer(world)) as talk:
            assert isinstance(await talk.receive(), wire.CopyHeld)


async def test_who_does_not_serves_neither(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, ASKER]) as world:
        assert world[0].leading is None
        for protocol, message in (
            (coordinator.PROTOCOL, grant(1)),
            (copies.PROTOCOL, an_offer(world)),
        ):
            with pytest.raises((PeerUnreachableError, RequestRefusedError)):
                async with world[0].mesh.converse(world.peer(1), protocol, message) as talk:
                    await talk.receive()


async def test_the_rooms_of_one_node_share_their_fences(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, LEADER]) as world:
        mesh = world[0].mesh
        later = grant(5, task=TASK)
        async with mesh.converse(world.peer(1), coordinator.PROTOCOL, later) as talk:
            await talk.receive()
            async with mesh.converse(world.peer(1), copies.PROTOCOL, an_offer(world)) as copying:
                with pytest.raises(RequestRefusedError, match="stale: term 1, 5 was heard"):
                    await copying.receive()
