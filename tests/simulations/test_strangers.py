"""Strangers by the dozen: nobody is let in but who was invited, and silence is not listened to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from kowalski.mesh.invites import InviteBook
from simulations import rogue, strangers
from simulations.menu import Fault
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.simulations.looking import broken

pytestmark = pytest.mark.trio


async def test_of_all_who_knock_only_the_invited_one_is_let_in(virtual_time: JumpingClock) -> None:
    async with open_world(2) as world:
        with trio.move_on_after(20):
            fault = Fault("join-flood", 0.0, 20.0, (0,), 0.5)
            await rogue.visit(world, 0, fault, strangers.flood_joins, is_member=False)
        assert not broken(world.witness)
        assert world.witness.evaluated["newcomers_are_let_in"] == 1
        assert world.witness.evaluated["strangers_get_nothing"] > 50
        assert world.witness.messages["trust/join-granted"] == 1


async def test_where_nobody_may_let_anybody_in_nobody_is(virtual_time: JumpingClock) -> None:
    async with open_world(2) as world:
        with trio.move_on_after(20):
            fault = Fault("join-flood", 0.0, 20.0, (1,), 0.5)
            await rogue.visit(world, 1, fault, strangers.flood_joins, is_member=False)
        assert not broken(world.witness)
        assert world.witness.evaluated["newcomers_are_let_in"] == 0
        assert world.witness.messages["trust/join-granted"] == 0


async def test_a_spent_invite_that_lets_in_is_noticed(
    virtual_time: JumpingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InviteBook, "spend", lambda _book, _invite: None)
    async with open_world(2) as world:
        with trio.move_on_after(20):
            fault = Fault("join-flood", 0.0, 20.0, (0,), 0.5)
            await rogue.visit(world, 0, fault, strangers.flood_joins, is_member=False)
        assert set(broken(world.witness)) == {"strangers_get_nothing"}


async def test_a_newcomer_that_is_turned_away_is_noticed(
    virtual_time: JumpingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InviteBook, "find", lambda _book, _invite: None)
    async with open_world(2) as world:
        with trio.move_on_after(20):
            fault = Fault("join-flood", 0.0, 20.0, (0,), 0.5)
            await rogue.visit(world, 0, fault, strangers.flood_joins, is_member=False)
        assert broken(world.witness) == ["newcomers_are_let_in"]


async def test_who_says_nothing_is_hung_up_on(virtual_time: JumpingClock) -> None:
    async with open_world(2) as world:
        fault = Fault("slow-loris", 0.0, 60.0, (0,), 60.0)
        with trio.move_on_after(60):
            await rogue.visit(world, 0, fault, strangers.say_nothing, is_member=False)
        assert not broken(world.witness)
        assert world.witness.evaluated["strangers_are_let_go"] > strangers.LORISES


async def test_who_is_listened_to_for_too_long_is_noticed(virtual_time: JumpingClock) -> None:
    async with open_world(2) as world:
        connections = world[0].mesh._connections
        patient = replace(connections.state.params, stranger_s=1e6)
        driver = connections._driver
        driver.state = replace(driver.state, params=patient)
        fault = Fault("slow-loris", 0.0, 60.0, (0,), 60.0)
        with trio.move_on_after(60):
            await rogue.visit(world, 0, fault, strangers.say_nothing, is_member=False)
        assert set(broken(world.witness)) == {"strangers_are_let_go"}
