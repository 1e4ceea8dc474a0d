"""What a rogue does, does nothing to a node but cost it some time."""

from __future__ import annotations

import pytest
import trio

from simulations import rogue
from simulations.menu import Fault
from simulations.virtual_time import JumpingClock
from simulations.world import Part, World, open_world
from tests.simulations.looking import broken

ATTACKS = {
    "garbage": rogue.send_garbage,
    "forged": rogue.show_a_stolen_certificate,
    "unsigned": rogue.show_an_unsigned_certificate,
    "old terms": rogue.speak_of_old_terms,
    "unknown": rogue.say_what_nobody_knows,
    "streams": rogue.open_many_streams,
    "requests": rogue.ask_too_much,
    "gossip": rogue.gossip_too_much,
    "telemetry": rogue.say_too_much_of_itself,
    "bad text": rogue.send_bad_text,
}
STRANGERS = {"forged", "unsigned"}


async def visited(world: World, name: str) -> None:
    fault = Fault(name, 0.0, 10.0, (0,), 0.5)
    with trio.move_on_after(10):
        await rogue.visit(world, 0, fault, ATTACKS[name], is_member=name not in STRANGERS)


@pytest.mark.trio
@pytest.mark.parametrize("name", ATTACKS)
async def test_the_node_goes_on_and_works(name: str, virtual_time: JumpingClock) -> None:
    async with open_world([Part(models=("m",)), Part()]) as world:
        await visited(world, name)
        task = world.submit(0, "```python\nsay hi\nask what\n```", mode="blocks")
        result = await world.result(0, task)
        assert result.state == "answered"
        assert not broken(world.witness)


@pytest.mark.trio
async def test_a_stranger_that_is_served_is_noticed(virtual_time: JumpingClock) -> None:
    """The promise is looked at: with a certificate that holds, it would be served, and is."""
    async with open_world([Part(models=("m",)), Part()]) as world:

        async def show_a_good_one(one: rogue.Rogue) -> None:
            await rogue._show(one, one.certificate)

        fault = Fault("forged", 0.0, 10.0, (0,), 0.5)
        with trio.move_on_after(10):
            await rogue.visit(world, 0, fault, show_a_good_one, is_member=False)
        assert broken(world.witness) == ["strangers_get_nothing"]


@pytest.mark.trio
async def test_telemetry_without_an_end_is_heard_and_bounded(virtual_time: JumpingClock) -> None:
    async with open_world([Part(models=("m",)), Part()]) as world:
        before = world[0].mesh.telemetry.received
        await visited(world, "telemetry")
        assert world[0].mesh.telemetry.received - before > 100, "it is a member, and well formed"
        assert len(world[0].mesh.telemetry.view.peers) <= 2
