"""The room of copies: what it takes, what it shows to whom, and what it fetches meanwhile."""

from __future__ import annotations

import pytest
import trio

from kowalski.node.copy_storage import open_copy_storage
from kowalski.node.core.copy_desk import KEPT_S, Offer
from kowalski.node.core.fences import TaskKey
from kowalski.node.database import StorageError
from kowalski.node.services import copies
from kowalski.node.services.copies import CopyRoom
from kowalski.node.services.fence_book import FenceBook
from kowalski.protocol.codec import encode
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.messages import copies as wire
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.journal import CancelHeard, Closed
from kowalski.protocol.messages.repl import Input, SessionClosed
from kowalski.protocol.messages.task import Digest, Entry
from kowalski.rlm.journal import GENESIS, digest
from simulations.virtual_time import JumpingClock
from simulations.world import Part, World, open_world
from tests.node.services.prompts import ASKER, LEADER

pytestmark = pytest.mark.trio

TASK = TaskId("task")


def room_of(world: World, number: int) -> CopyRoom:
    leading = world[number].leading
    assert leading is not None
    return leading.copies


def chain(
    words: str, *, term: int = 1, start: int = 0, parent: Digest = GENESIS
) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    for at, word in enumerate(words):
        body = encode(CancelHeard(reason=word))
        entries.append(Entry(term=term, index=start + at, parent=parent, body=body))
        parent = digest(TASK, entries[-1])
    return tuple(entries)


ABCD = chain("abcd")


def offered(world: World, entries: tuple[Entry, ...], *, term: int = 1) -> wire.CopyOffered:
    return wire.CopyOffered(
        task=TASK,
        term=term,
        submitter=world.peer(0),
        start=entries[0].index,
        parent=entries[0].parent,
        entries=entries,
    )


async def tell(world: World, number: int, message: Message) -> Message:
    """As node 1, a coordinator, says it."""
    async with world[1].mesh.converse(world.peer(number), copies.PROTOCOL, message) as talk:
        return await talk.receive()


THREE = [ASKER, LEADER, LEADER]


async def test_what_is_offered_is_held_and_shown_to_a_later_coordinator(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(THREE) as world:
        held = await tell(world, 2, offered(world, ABCD))
        assert held == wire.CopyHeld(
            task=TASK, entries=4, digest=digest(TASK, ABCD[3]), has_contents=True
        )
        key: TaskKey = (world.peer(0), TASK)
        found = await room_of(world, 1).find(key, 2, 0, GENESIS, [world.peer(2)])
        assert found == list(ABCD)
        behind = digest(TASK, ABCD[1])
        assert await room_of(world, 1).find(key, 2, 2, behind, [world.peer(2)]) == list(ABCD[2:])
        assert await room_of(world, 1).find(key, 2, 2, GENESIS, [world.peer(2)]) == []


async def test_the_longest_of_several_copies_is_found_and_the_absent_are_not_waited_for(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, LEADER, LEADER, LEADER, LEADER]) as world:
        await tell(world, 2, offered(world, ABCD[:1]))
        await tell(world, 3, offered(world, ABCD[:3]))
        key: TaskKey = (world.peer(0), TASK)
        await world.kill(4)
        nobody = PeerId("12D3KooWHwoever1111")
        holders = [world.peer(number) for number in (2, 3, 4)]
        began = trio.current_time()
        found = await room_of(world, 1).find(key, 2, 0, GENESIS, [*holders, nobody])
        assert found == list(ABCD[:3])
        assert trio.current_time() - began < 1


async def test_a_journal_longer_than_a_message_is_found_whole(virtual_time: JumpingClock) -> None:
    async with open_world(THREE) as world:
        many = chain("x" * 200)
        for start in range(0, 200, 50):
            await tell(world, 2, offered(world, many[start : start + 50]))
        key: TaskKey = (world.peer(0), TASK)
        assert await room_of(world, 1).find(key, 2, 0, GENESIS, [world.peer(2)]) == list(many)


async def test_what_was_written_in_ones_own_term_by_others_is_no_journal(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(THREE) as world:
        later = chain("z", term=2, start=4, parent=digest(TASK, ABCD[3]))
        await tell(world, 2, offered(world, (*ABCD, *later), term=2))
        key: TaskKey = (world.peer(0), TASK)
        assert await room_of(world, 1).find(key, 2, 0, GENESIS, [world.peer(2)]) == list(ABCD)


async def test_a_lower_term_is_refused_whatever_it_wants(virtual_time: JumpingClock) -> None:
    async with open_world(THREE) as world:
        await tell(world, 2, offered(world, ABCD, term=3))
        asked = wire.CopyAsked(task=TASK, term=2, submitter=world.peer(0), start=0, parent=GENESIS)
        dropped = wire.CopyDropped(task=TASK, term=2, submitter=world.peer(0))
        for message in (offered(world, ABCD, term=2), asked, dropped):
            with pytest.raises(RequestRefusedError, match="stale: term 2, 3 was heard"):
                await tell(world, 2, message)
        assert len(room_of(world, 2).copies) == 1


async def test_what_is_dropped_is_gone_and_what_is_no_message_of_ours_is_refused(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(THREE) as world:
        await tell(world, 2, offered(world, ABCD))
        dropped = wire.CopyDropped(task=TASK, term=1, submitter=world.peer(0))
        assert await tell(world, 2, dropped) == dropped
        assert await tell(world, 2, dropped) == dropped, "again"
        assert room_of(world, 2).copies == ()
        with pytest.raises(RequestFailedError, match="bad_request"):
            await tell(world, 2, SessionClosed(task=TASK, term=1))


async def test_copies_are_there_after_a_restart_with_their_fences(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(THREE) as world:
        await tell(world, 2, offered(world, ABCD, term=2))
        await world.restart(2)
        await world.meet()
        key: TaskKey = (world.peer(0), TASK)
        assert await room_of(world, 1).find(key, 3, 0, GENESIS, [world.peer(2)]) == list(ABCD)
        with pytest.raises(RequestRefusedError, match="stale"):
            await tell(world, 2, offered(world, ABCD, term=1))


async def test_what_entries_and_inputs_refer_to_is_fetched_after_a_while_and_kept(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(THREE) as world:
        context, full = [await world[1].store.put(name) for name in (b"context", b"full")]
        orphan = ContentRef(hash="0" * 64, bytes_total=5, holders=(world.peer(1),))  # type: ignore[arg-type]
        closed = encode(Closed(outcome="answered", answer="x", full=full))
        entry = Entry(term=1, index=0, parent=GENESIS, body=closed)
        inputs = (Input(name="a", content=context),)
        first = offered(world, (entry,)).model_copy(update={"inputs": inputs})
        held = await tell(world, 2, first)
        assert isinstance(held, wire.CopyHeld)
        assert not held.has_contents
        there = world[2].store
        assert there.path(context.hash) is None
        await world.until(lambda: there.path(context.hash) and there.path(full.hash), within_s=10)  # type: ignore[arg-type, return-value]
        again = await tell(world, 2, first)
        assert isinstance(again, wire.CopyHeld)
        assert again.has_contents
        key: TaskKey = (world.peer(0), TASK)
        assert room_of(world, 2).lacks(key) == 0
        lost = (Input(name="b", content=orphan),)
        await tell(world, 2, first.model_copy(update={"inputs": lost}))
        await trio.sleep(30)
        assert room_of(world, 2).lacks(key) == 1, "it is tried again and again"


async def test_a_day_after_its_coordinator_was_heard_last_a_copy_is_forgotten(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(THREE) as world:
        await tell(world, 2, offered(world, ABCD))
        for age_s, left in ((KEPT_S - 1000, 1), (2000, 0)):
            # A day of the simulation would take us minutes: its disk remembers an earlier time.
            with room_of(world, 2)._storage._database.writing() as cursor:
                cursor.execute("UPDATE copies SET heard_unix_s = heard_unix_s - ?", (age_s,))
            await world.restart(2)
            await trio.sleep(1)
            assert len(room_of(world, 2).copies) == left


async def test_a_disk_that_takes_no_more_refuses_a_copy_and_the_room_lives_on(
    virtual_time: JumpingClock,
) -> None:
    async with open_world(THREE) as world:
        room = room_of(world, 2)
        connection = room._storage._database._connection
        connection.execute("PRAGMA query_only = 1")
        with pytest.raises(RequestRefusedError, match="no_capacity"):
            await tell(world, 2, offered(world, ABCD))
        assert room.copies == ()
        connection.execute("PRAGMA query_only = 0")
        held = await tell(world, 2, offered(world, ABCD))
        assert isinstance(held, wire.CopyHeld)
        assert held.entries == 4


async def test_our_own_coordination_hears_of_a_disk_that_takes_no_more(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([Part()]) as world:
        place = world.places[0].config
        with open_copy_storage(place.data_dir / "other.sqlite") as storage:
            mesh, store = world[0].mesh, world[0].store
            room = CopyRoom(mesh, storage, store, FenceBook(), unix_clock=lambda: 0.0)
            storage._database._connection.execute("PRAGMA query_only = 1")
            with pytest.raises(StorageError):
                room.keep(Offer((world.peer(0), TASK), 1, 0, GENESIS, ABCD))
            assert room.copies == ()
