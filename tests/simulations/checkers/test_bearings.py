"""Nodes that look for others where nobody is, or keep all in mind that is announced, are found."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from kowalski.mesh.core.connectivity import Sighted
from kowalski.mesh.identity import identity_from_seed
from kowalski.protocol.ids import Address
from simulations.checkers.bearings import DIALS_MAX, PEERS_MAX, look_at_bearings
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.simulations.looking import broken

pytestmark = pytest.mark.trio


async def test_where_all_is_well_each_knows_where_the_others_are(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(3) as world:
        await world.kill(2)
        look_at_bearings(world)
        assert not broken(world.witness)
        assert world.witness.evaluated["true_addresses_stay"] == 4
        assert world.witness.evaluated["hearsay_is_bounded"] == 2


async def test_a_true_address_that_is_lost_is_noticed(virtual_time: JumpingClock) -> None:
    async with open_world(2) as world:
        driver = world[0].mesh._connections._driver
        known = driver.state.peers[world.peer(1)]
        lost = replace(known, addresses=(Address("/ip4/198.51.100.1/tcp/1"),), named=(), told=())
        driver.state = replace(driver.state, peers={known.id: replace(lost, reached=None)})
        look_at_bearings(world)
        assert broken(world.witness) == ["true_addresses_stay"]


async def test_too_many_peers_in_mind_or_dials_in_vain_are_noticed(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(2) as world:
        world.places[1].voice.misled = DIALS_MAX + 1
        look_at_bearings(world)
        assert broken(world.witness) == ["hearsay_is_bounded"]
        world.places[1].voice.misled = 0
        world.witness.violations.clear()
        for number in range(PEERS_MAX):
            nobody = identity_from_seed(
                hashlib.sha256(bytes([number % 256, number // 256])).digest()
            )
            sighting = Sighted(nobody.peer, (Address("/ip4/198.51.100.1/tcp/1"),))
            world.as_node(0, lambda node, told=sighting: node.mesh.sighted(told))  # type: ignore[misc]
        look_at_bearings(world)
        assert broken(world.witness) == ["hearsay_is_bounded"]
