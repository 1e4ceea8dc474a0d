"""Nodes that do not know each other, that know the dead, or that believe anything, are found."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from kowalski.mesh.core.telemetry_view import PeerTelemetry
from simulations.checkers.views import Beliefs, disagreements, ghosts
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.simulations.looking import broken


@pytest.mark.trio
async def test_who_is_cut_off_is_missed_on_both_sides(virtual_time: JumpingClock) -> None:
    async with open_world(3) as world:
        assert not disagreements(world)
        world.cut(0, 1)
        await trio.sleep(1)
        found = disagreements(world)
        assert [words[:21] for words in found] == [
            "node 0 holds node 1 f",
            "node 1 holds node 0 f",
        ]
        world.mend(0, 1)
        await world.meet()
        assert not disagreements(world)


@pytest.mark.trio
async def test_who_is_down_and_still_routed_to_is_a_ghost(virtual_time: JumpingClock) -> None:
    async with open_world(3) as world:
        await world.kill(2, is_silent=True)
        assert ghosts(world) == [
            "node 0 routes to node 2, which is down",
            "node 1 routes to node 2, which is down",
        ]
        assert not disagreements(world), "it is down, so nobody has to know it"
        await world.until(lambda: not ghosts(world), within_s=60)


@pytest.mark.trio
async def test_beliefs_that_are_no_numbers_or_older_than_before_are_seen(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(2) as world:
        await trio.sleep(3)
        beliefs, telemetry = Beliefs(world.witness), world[0].mesh.telemetry
        good = telemetry.view.peers[world.peer(1)]

        def look(told: PeerTelemetry) -> list[str]:
            world.witness.violations.clear()
            telemetry.view = replace(telemetry.view, peers={world.peer(1): told})
            beliefs.look(world)
            return broken(world.witness)

        assert look(good) == []
        odd = good.hot.model_copy(update={"memory_used": float("nan")})
        assert set(look(replace(good, hot=odd))) == {"telemetry_within_reason"}
        for speed in (1e9, -1.0, float("nan")):
            fast = good.hot.model_copy(update={"tokens_per_s": {"l": 1.0, "m": speed}})
            assert set(look(replace(good, hot=fast))) == {"telemetry_within_reason"}
        later = good.profile.model_copy(update={"sequence": good.profile.sequence + 2})
        assert look(replace(good, profile=later)) == []
        assert "telemetry_monotone" in look(good)
        reborn = later.model_copy(update={"boot": "0" * 16, "sequence": 1})
        assert look(replace(good, profile=reborn)) == []
        assert "telemetry_monotone" in look(replace(good, profile=later))
