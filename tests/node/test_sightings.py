"""What discovery hears reaches the mesh as a hint, and nothing more."""

from __future__ import annotations

import pytest
import trio

from kowalski.mesh.discovery import Sighting
from kowalski.mesh.identity import identity_from_seed
from kowalski.node.sightings import follow_sightings
from kowalski.protocol.ids import Address, MeshId
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world

pytestmark = pytest.mark.trio

FALSE = (Address("/ip4/198.51.100.1/tcp/4001"),)
SOMEBODY = identity_from_seed(b"s" * 32).peer


async def heard(world: World, *sightings: Sighting) -> None:
    """Node 0 hears these."""
    send, receive = trio.open_memory_channel[Sighting](len(sightings))
    for one in sightings:
        send.send_nowait(one)
    send.close()
    await follow_sightings(receive, world[0].mesh)


async def test_a_peer_of_our_mesh_is_looked_for_and_another_is_not(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(2) as world:
        mesh = world.root.mesh
        await heard(
            world,
            Sighting(SOMEBODY, FALSE, None),
            Sighting(SOMEBODY, FALSE, MeshId("b" * 32)),
            Sighting(SOMEBODY, FALSE, mesh, left=True),
        )
        assert world[0].mesh.addresses_of(SOMEBODY) == ()
        await heard(world, Sighting(SOMEBODY, FALSE, mesh))
        assert world[0].mesh.addresses_of(SOMEBODY) == FALSE


async def test_a_member_that_is_announced_elsewhere_is_still_looked_for_where_it_is(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(2) as world:
        false = [
            Address(f"/ip4/198.51.100.{host}/tcp/{port}") for host in range(20) for port in (1, 2)
        ]
        for at in range(0, len(false), 4):
            await heard(world, Sighting(world.peer(1), tuple(false[at : at + 4]), world.root.mesh))
        assert f"/memory/{world.peer(1)}" in world[0].mesh.addresses_of(world.peer(1))


async def test_whoever_announces_our_own_id_is_told_to_people(virtual_time: JumpingClock) -> None:
    async with open_world(2) as world:
        assert not world[0].mesh.twins.warnings()
        await heard(world, Sighting(world.peer(0), FALSE, world.root.mesh))
        (warning,) = world[0].mesh.twins.warnings().values()
        assert "198.51.100.1" in warning
