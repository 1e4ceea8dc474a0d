"""The room that folds texts, asked over frames by a peer; folding itself is real."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from kowalski.mesh.content_store import CHUNK_TIMEOUT_S
from kowalski.mesh.content_store import PROTOCOL as CONTENT_PROTOCOL
from kowalski.mesh.conversation import Conversation
from kowalski.node.services import folding
from kowalski.node.services.folding import PROTOCOL, FoldingRoom
from kowalski.protocol.errors import RequestFailedError, RequestRefusedError
from kowalski.protocol.ids import ContentHash, PeerId
from kowalski.protocol.limits import TEXT_BYTES_MAX
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.folding import FoldAsked, FoldDone
from kowalski.protocol.messages.membership import RoundTrip
from kowalski.protocol.messages.telemetry import Occupancy
from kowalski.rlm.folding import fold
from simulations.virtual_time import JumpingClock
from tests.node.services.rooms import HOT, PatientClock, Two, hot, open_two, until

pytestmark = pytest.mark.trio

TEXT = "".join(
    f"On day {day} the pump at station {day * 7 % 13} delivered {day * 31 % 997} litres.\n"
    for day in range(200)
)


@dataclass(slots=True)
class Desk:
    two: Two
    room: FoldingRoom

    async def fold(self, *, within_s: float = 120.0, **more: Any) -> FoldDone:  # noqa: ANN401
        asked = FoldAsked(**{"budget_tokens": 100, "remaining_s": 60.0, **more})
        return await self.two.asking.asker.request(
            self.two.room.peer, PROTOCOL, asked, FoldDone, timeout_s=within_s
        )


@asynccontextmanager
async def open_desk(folder: Path, *, slots: int = 2) -> AsyncIterator[Desk]:
    async with open_two(folder) as two:
        room = FoldingRoom(two.room.store, two.room.requester, slots=slots, hot=hot)
        two.room.serve(PROTOCOL, room.answer)
        yield Desk(two, room)


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


async def test_a_text_comes_back_folded_to_its_budget(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        done = await desk.fold(text=TEXT)
        expected = fold(TEXT, budget_tokens=100)
        assert (done.text, done.content) == (expected.text, None)
        assert (done.source_tokens, done.tokens) == (expected.source_tokens, expected.tokens)
        assert 50 < done.tokens <= 100
        assert (done.algorithm, done.hot) == (expected.algorithm, HOT)


async def test_a_question_decides_what_is_kept(virtual_time: JumpingClock, tmp_path: Path) -> None:
    homes = {"badger": "sett", "otter": "holt", "hare": "form", "fox": "earth", "squirrel": "drey"}
    text = " ".join(f"The {animal} sleeps in its {home}." for animal, home in homes.items())
    async with open_desk(tmp_path) as desk:
        for animal, home in homes.items():
            question = f"where does the {animal} sleep?"
            done = await desk.fold(text=text, budget_tokens=20, question=question)
            assert done.text is not None
            assert home in done.text
            assert done.tokens <= 20


async def test_a_long_text_comes_by_its_hash(virtual_time: JumpingClock, tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        content = await desk.two.asking.store.put(TEXT.encode())
        done = await desk.fold(content=content)
        assert done.text == fold(TEXT, budget_tokens=100).text
        await desk.fold(content=content)
        assert len(desk.two.asking.content_asked) == 1, "it crosses once"


async def test_a_long_fold_goes_by_its_hash(virtual_time: JumpingClock, tmp_path: Path) -> None:
    letter = "\N{CJK UNIFIED IDEOGRAPH-6F22}"
    text = letter * (TEXT_BYTES_MAX // 3)
    async with open_desk(tmp_path) as desk:
        done = await desk.fold(text=text, budget_tokens=10_000_000)
        assert (done.text, done.content) == (text, None), "it just fits a message"
        longer = (text + letter).encode()
        content = await desk.two.asking.store.put(longer)
        done = await desk.fold(content=content, budget_tokens=10_000_000)
        assert done.text is None
        assert done.content is not None
        assert done.content.holders == (desk.two.room.peer,)
        assert done.content.hash == content.hash
        await desk.two.asking.store.fetch(done.content, desk.two.asking.requester)
        assert await desk.two.asking.store.read(done.content) == longer


async def test_bytes_that_are_no_text_are_folded_all_the_same(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        content = await desk.two.asking.store.put(b"caf\xe9 is not UTF-8")
        assert (await desk.fold(content=content)).text == "caf\ufffd is not UTF-8"


async def test_a_text_beyond_what_folding_is_for_is_refused_unfetched(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        huge = ContentRef(
            hash=ContentHash("0" * 64),
            bytes_total=folding.SOURCE_BYTES_MAX + 1,
            holders=(desk.two.asking.peer,),
        )
        with pytest.raises(RequestRefusedError, match="too_large: 33554433 bytes; at most 335544"):
            await desk.fold(content=huge)
        assert desk.two.asking.content_asked == []


async def test_a_text_that_nobody_holds_is_a_failure_of_its_content(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        gone = ContentRef(
            hash=ContentHash("0" * 64), bytes_total=10, holders=(desk.two.asking.peer,)
        )
        with pytest.raises(RequestFailedError, match=r"content: content 0{12}: .*unknown"):
            await desk.fold(content=gone)


async def test_nothing_to_fold_is_a_bad_request(virtual_time: JumpingClock, tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        with pytest.raises(RequestFailedError, match="bad_request: neither text nor content"):
            await desk.fold()
        with pytest.raises(RequestFailedError, match="bad_request: membership/round-trip in a"):
            await desk.two.asking.asker.request(
                desk.two.room.peer, PROTOCOL, RoundTrip(), RoundTrip, timeout_s=5
            )


async def test_a_full_queue_is_busy_and_everybody_in_it_is_served(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    slots = 2
    refused: list[RequestRefusedError] = []
    done: list[FoldDone] = []
    gate = trio.Event()

    async with open_desk(tmp_path, slots=slots) as desk:

        async def answer(conversation: Conversation, request: Message) -> Message:
            await gate.wait()
            return await desk.two.asking.store.answer(conversation, request)

        async def ask() -> None:
            try:
                done.append(await desk.fold(content=content))
            except RequestRefusedError as no:
                refused.append(no)

        content = await desk.two.asking.store.put(TEXT.encode())
        desk.two.asking.serve(CONTENT_PROTOCOL, answer)
        async with trio.open_nursery() as nursery:
            for _ in range(slots + folding.QUEUE_MAX + 3):
                nursery.start_soon(ask)
            await until(lambda: len(refused) == 3)
            at = desk.room.occupancy
            assert (at.running + at.queued, at.slots) == (slots + folding.QUEUE_MAX, slots)
            gate.set()
        assert len(done) == slots + folding.QUEUE_MAX
        assert {(no.reason, no.retry_after_s) for no in refused} == {("busy", 1.0)}
        assert desk.room.occupancy == Occupancy(running=0, queued=0, slots=slots)


class Unheard:
    """A conversation in which nothing need be said."""

    peer = PeerId("12D3KooWNobody")

    async def send(self, message: Message) -> None:
        raise AssertionError(message)

    async def receive(self) -> Message:
        raise AssertionError


class Silent:
    """Serves content by saying nothing at all."""

    def __init__(self) -> None:
        self.is_asked = trio.Event()
        self.asking = 0

    async def answer(self, _conversation: Conversation, _request: Message) -> Message:
        self.is_asked.set()
        self.asking += 1
        try:
            await trio.sleep_forever()
        finally:
            self.asking -= 1
        raise AssertionError


def nowhere(desk: Desk) -> ContentRef:
    return ContentRef(hash=ContentHash("0" * 64), bytes_total=10, holders=(desk.two.asking.peer,))


async def test_a_fold_that_takes_longer_than_the_asker_waits_is_a_timeout(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk:
        desk.two.asking.serve(CONTENT_PROTOCOL, Silent().answer)
        before = trio.current_time()
        with pytest.raises(RequestFailedError, match=r"timeout: no fold within 2\.5 s"):
            await desk.fold(content=nowhere(desk), remaining_s=2.5)
        assert trio.current_time() - before == pytest.approx(2.5, abs=0.1)
        with pytest.raises(RequestFailedError, match="content: "):
            await desk.fold(content=nowhere(desk), remaining_s=10 * CHUNK_TIMEOUT_S)


async def test_an_asker_that_goes_away_stops_the_work(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as desk, trio.open_nursery() as nursery:
        silent = Silent()
        desk.two.asking.serve(CONTENT_PROTOCOL, silent.answer)
        nursery.start_soon(lambda: desk.fold(content=nowhere(desk)))
        await silent.is_asked.wait()
        nursery.cancel_scope.cancel()
    assert silent.asking == 0


async def test_a_cancelled_fold_frees_its_slot_at_once(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path, slots=1) as desk, trio.open_nursery() as nursery:
        asked = FoldAsked(text=TEXT * 10, budget_tokens=100, remaining_s=60.0)
        scope = trio.CancelScope()

        async def ask() -> None:
            with scope:
                # Straight to the room: on the way a cancellation would come after the thread.
                await desk.room.answer(Unheard(), asked)

        nursery.start_soon(ask)
        while not trio.testing.active_thread_count():
            await trio.lowlevel.checkpoint()
        assert desk.room.occupancy.running == 1
        scope.cancel()
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        assert desk.room.occupancy.running == 0
        # The thread is let go of, so that virtual time does not wait for it: real time must.
        while trio.to_thread.current_default_thread_limiter().borrowed_tokens:
            await trio.lowlevel.checkpoint()
