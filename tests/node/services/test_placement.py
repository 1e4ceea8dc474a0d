"""Offers over the wire: promised, held while asked for, given back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from kowalski.node.core.job import Job
from kowalski.node.services.gate import Gate, Resources
from kowalski.node.services.placement import PROTOCOL, PlacementRoom
from kowalski.protocol.errors import RemoteProtocolError, RequestFailedError, RequestRefusedError
from kowalski.protocol.ids import content_hash
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.membership import RoundTrip
from kowalski.protocol.messages.placement import Offer, OfferAsked
from simulations.virtual_time import JumpingClock
from tests.node.services.rooms import HOT, PatientClock, Two, hot, open_two, until

pytestmark = pytest.mark.trio


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


def wanted(**more: object) -> OfferAsked:
    return OfferAsked.model_validate(
        {"kind": "code", "language": "python", "remaining_s": 60.0, **more}
    )


def why_not(job: Job) -> str:
    return "" if job.language == "python" else f"no {job.language} here"


@asynccontextmanager
async def open_desk(folder: Path) -> AsyncIterator[tuple[Two, Gate]]:
    async with open_two(folder) as two:
        gate = Gate(two.room.peer, Resources(lambda _job: 1))
        two.nursery.start_soon(gate.run)
        room = PlacementRoom(gate, two.room.store, why_not=why_not, hot=hot)
        two.room.serve(PROTOCOL, room.answer)
        yield two, gate


async def ask(two: Two, asked: Message) -> Message:
    return await two.asking.asker.request(two.room.peer, PROTOCOL, asked, Message, timeout_s=99)


async def test_a_mere_question_is_answered_and_holds_nothing(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as (two, gate):
        offer = await ask(two, wanted())
        assert isinstance(offer, Offer)
        assert offer.reservation is None
        assert (offer.wait_s, offer.slots, offer.hot) == (0.0, 1, HOT)
        assert gate.occupancy("code", 1).queued == 0


async def test_a_place_is_held_while_the_asker_stays_and_given_back_when_it_leaves(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as (two, gate):
        asker, peer = two.asking.asker, two.room.peer
        async with asker.converse(peer, PROTOCOL, wanted(reserve_s=2.0)) as asking:
            offer = await asking.receive()
            assert isinstance(offer, Offer)
            assert offer.reservation is not None
            assert gate.occupancy("code", 1).queued == 1
        await until(lambda: gate.occupancy("code", 1).queued == 0, within_s=1.0)


async def test_a_place_is_held_no_longer_than_promised(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as (two, gate):
        asker, peer = two.asking.asker, two.room.peer
        async with asker.converse(peer, PROTOCOL, wanted(reserve_s=1e6)) as asking:
            await asking.receive()
            began = trio.current_time()
            last = await asking.receive()
            assert isinstance(last, Offer)
            assert last.reservation is None
            assert trio.current_time() - began == pytest.approx(5.0, abs=0.1)
            assert gate.occupancy("code", 1).queued == 0


async def test_what_is_held_here_of_the_content_is_told(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as (two, _gate):
        here = (await two.room.store.put(b"here")).hash
        offer = await ask(two, wanted(content=(content_hash(b"nowhere"), here)))
        assert isinstance(offer, Offer)
        assert offer.held == (1,)


@pytest.mark.parametrize("more", [{"language": "cobol"}, {"kind": "dancing"}])
async def test_what_cannot_be_done_here_is_refused_in_words(
    virtual_time: JumpingClock, tmp_path: Path, more: dict[str, str]
) -> None:
    async with open_desk(tmp_path) as (two, _gate):
        with pytest.raises(RequestRefusedError) as no:
            await ask(two, wanted(**more))
        assert no.value.reason == "unsupported"
        assert next(iter(more.values())) in no.value.detail


async def test_a_full_or_paused_worker_offers_nothing(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_desk(tmp_path) as (two, gate):
        gate.pause("on battery")
        with pytest.raises(RequestRefusedError, match="paused: on battery") as no:
            await ask(two, wanted())
        assert no.value.retry_after_s is not None


async def test_something_else_is_a_bad_request(virtual_time: JumpingClock, tmp_path: Path) -> None:
    async with open_desk(tmp_path) as (two, _gate):
        with pytest.raises((RequestFailedError, RemoteProtocolError), match="bad_request"):
            await ask(two, RoundTrip())
