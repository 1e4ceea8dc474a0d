"""Standbys are kept up to date, whatever they have and whenever they come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.node.core.copy_desk import Copy, Offer
from kowalski.node.core.fences import TaskKey
from kowalski.node.services import copies
from kowalski.node.services.copies import CopyRoom
from kowalski.node.services.replication import Leading, Pace, Replication
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages import copies as wire
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.task import Digest, Entry
from kowalski.rlm.journal import GENESIS, digest
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, LEADER
from tests.node.services.test_copies import TASK, chain, room_of

pytestmark = pytest.mark.trio

INPUTS = ()


@dataclass
class Coordinator:
    """Node 1, which leads a task of node 0."""

    world: World
    room: CopyRoom
    key: TaskKey
    term: int = 1
    is_lease_over: bool = False
    witnesses: list[PeerId] = field(default_factory=list)
    stale: int = 0
    journal: list[Entry] = field(default_factory=list)

    def record(self, words: str, replication: Replication) -> None:
        parent: Digest = digest(TASK, self.journal[-1]) if self.journal else GENESIS
        start = len(self.journal)
        entries = chain(words, term=self.term, start=start, parent=parent)
        self.journal += entries
        self.room.keep(Offer(self.key, self.term, start, parent, entries))
        replication.news()

    def on_stale(self) -> None:
        self.stale += 1

    def held_by(self, number: int) -> Copy | None:
        return room_of(self.world, number).held(self.key)

    def is_whole_at(self, *numbers: int) -> bool:
        wanted = tuple(digest(TASK, entry) for entry in self.journal)
        found = [self.held_by(number) for number in numbers]
        return all(copy is not None and copy.digests == wanted for copy in found)


@asynccontextmanager
async def open_leading(standbys: int) -> AsyncIterator[tuple[Coordinator, Replication]]:
    async with open_world([ASKER, *[LEADER] * (1 + standbys)]) as world:
        leader = Coordinator(world, room_of(world, 1), (world.peer(0), TASK))
        leading = Leading(
            key=leader.key,
            inputs=INPUTS,
            term=lambda: leader.term,
            is_lease_over=lambda: leader.is_lease_over,
            on_witness=leader.witnesses.append,
            on_stale=leader.on_stale,
        )
        replication = Replication(world[1].mesh, leader.room, leading, Pace())
        replication.stand_by(tuple(world.peer(2 + n) for n in range(standbys)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(replication.run)
            yield leader, replication
            nursery.cancel_scope.cancel()


async def test_every_standby_has_the_journal_and_what_is_added_to_it(
    virtual_time: JumpingClock,
) -> None:
    async with open_leading(2) as (leader, replication):
        leader.record("abc", replication)
        await leader.world.until(lambda: leader.is_whole_at(2, 3), within_s=2)
        assert replication.is_complete
        leader.record("d", replication)
        assert not replication.is_complete
        await leader.world.until(lambda: leader.is_whole_at(2, 3), within_s=0.5)
        assert set(leader.witnesses) == {leader.world.peer(2), leader.world.peer(3)}


async def test_a_long_journal_goes_in_pieces(virtual_time: JumpingClock) -> None:
    async with open_leading(1) as (leader, replication):
        leader.record("x" * 300, replication)
        await leader.world.until(lambda: leader.is_whole_at(2), within_s=2)


async def test_a_standby_that_was_away_catches_up(virtual_time: JumpingClock) -> None:
    async with open_leading(1) as (leader, replication):
        leader.record("ab", replication)
        await leader.world.until(lambda: leader.is_whole_at(2), within_s=2)
        await leader.world.kill(2)
        leader.record("cd", replication)
        await trio.sleep(30)
        await leader.world.start(2)
        await leader.world.until(lambda: leader.is_whole_at(2), within_s=20)


async def test_one_that_has_another_coordinators_entries_gets_ours(
    virtual_time: JumpingClock,
) -> None:
    async with open_leading(1) as (leader, replication):
        leader.record("abcd", replication)
        await leader.world.until(lambda: leader.is_whole_at(2), within_s=2)
        leader.journal, leader.term = leader.journal[:2], 2
        leader.record("xy", replication)
        await leader.world.until(lambda: leader.is_whole_at(2), within_s=2)
        copy = leader.held_by(2)
        assert copy is not None
        assert copy.term == 2


async def test_standbys_may_change(virtual_time: JumpingClock) -> None:
    async with open_leading(2) as (leader, replication):
        world = leader.world
        replication.stand_by((world.peer(2),))
        leader.record("ab", replication)
        await world.until(lambda: leader.is_whole_at(2), within_s=2)
        assert leader.held_by(3) is None
        replication.stand_by((world.peer(3),))
        await world.until(lambda: leader.is_whole_at(3), within_s=2)
        leader.record("c", replication)
        await world.until(lambda: leader.is_whole_at(3), within_s=2)
        assert not leader.is_whole_at(2)


async def test_while_the_lease_is_over_it_asks_every_second_whether_it_was_replaced(
    virtual_time: JumpingClock,
) -> None:
    async with open_leading(1) as (leader, replication):
        leader.record("a", replication)
        await trio.sleep(20)
        usual = len(leader.witnesses)
        assert usual <= 5
        leader.is_lease_over = True
        await trio.sleep(30)
        assert len(leader.witnesses) >= usual + 18


async def test_a_standby_that_knows_of_a_higher_term_says_so(virtual_time: JumpingClock) -> None:
    async with open_leading(1) as (leader, replication):
        leader.record("a", replication)
        await leader.world.until(lambda: leader.is_whole_at(2), within_s=2)
        later = wire.CopyAsked(task=TASK, term=7, submitter=leader.key[0], start=0, parent=GENESIS)
        mesh = leader.world[0].mesh
        async with mesh.converse(leader.world.peer(2), copies.PROTOCOL, later) as talk:
            await talk.receive()
        leader.record("b", replication)
        await leader.world.until(lambda: leader.stale > 0, within_s=5)


async def test_one_that_answers_nonsense_or_nothing_harms_nobody(
    virtual_time: JumpingClock,
) -> None:
    async def nonsense(_conversation: Conversation, request: Message) -> Message:
        return request

    async with open_leading(2) as (leader, replication):
        leader.world[2].mesh.serve(copies.PROTOCOL, nonsense)
        leader.record("ab", replication)
        await leader.world.until(lambda: leader.is_whole_at(3), within_s=2)
        await trio.sleep(10)
        assert not replication.is_complete
        assert replication.holders == (leader.world.peer(3),)


async def test_copies_are_dropped_where_they_were_offered(virtual_time: JumpingClock) -> None:
    async with open_leading(2) as (leader, replication):
        leader.record("ab", replication)
        await leader.world.until(lambda: leader.is_whole_at(2, 3), within_s=2)
        await leader.world.kill(3)
        with trio.fail_after(5):
            await replication.drop(timeout_s=2.0)
        assert leader.held_by(2) is None
