"""False announcements reach the nodes by their own ears, and each takes what it is up to take."""

from __future__ import annotations

import random

import pytest
import trio

from simulations import hearsay
from simulations.hearsay import ODD, Network
from simulations.nowhere import lies_about
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world

pytestmark = pytest.mark.trio


def heard_of(world: World, number: int) -> int:
    """How many false addresses a node has for the others."""
    others = [place.identity.peer for place in world.places if place.number != number]
    known = [at for peer in others for at in world[number].mesh.addresses_of(peer)]
    return sum(not at.startswith("/memory/") for at in known)


async def test_all_that_are_up_hear_and_who_stands_still_hears_later(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(3) as world:
        network = Network(world)
        network.say("x", lies_about(world.peer(2), world.root.mesh, random.Random(1)))
        world.freeze(0, 5.0)
        network.tell()
        assert (heard_of(world, 0), heard_of(world, 2)) == (0, 0)
        assert heard_of(world, 1) > 0
        await trio.sleep(6)
        network.tell()
        assert heard_of(world, 0) > 0


async def test_who_was_down_has_heard_nothing(virtual_time: JumpingClock) -> None:
    async with open_world(3) as world:
        network = Network(world)
        await world.kill(0)
        network.say("x", lies_about(world.peer(2), world.root.mesh, random.Random(1)))
        network.tell()
        await world.start(0)
        network.tell()
        assert heard_of(world, 0) == 0


async def test_what_is_no_announcement_is_heard_and_says_nothing(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(2) as world:
        network = Network(world)
        for text in ODD:
            network.say("x" * 300, text)
        network.tell()
        assert heard_of(world, 0) == 0


async def test_members_and_nobodies_are_announced_by_the_hundred(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(3) as world:
        with trio.move_on_after(5):
            await hearsay.spoof(world, "seed")
        assert heard_of(world, 0) > 0
        assert len(world[0].mesh.facts()) > 100
