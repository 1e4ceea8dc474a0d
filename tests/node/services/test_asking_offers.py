"""Places are held at those who are asked, while it is decided who gets the work."""

from __future__ import annotations

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.core.offers import AGAIN_S, AGAIN_TIMES
from kowalski.node.services import placement
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.placement import Offer, OfferAsked
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, WORKER
from tests.node.services.rooms import PatientClock
from tests.node.services.test_dispatch import PYTHON, choose, dispatch
from tests.node.services.test_placed_work import Instead, done

pytestmark = pytest.mark.trio


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


def reserved(world: World, number: int) -> int:
    """Places that a node holds for somebody."""
    hot = world[number].mesh.facts_of(world.peer(number)).hot
    assert hot is not None
    return hot.repl.queued


async def test_among_several_the_best_offer_is_taken_and_the_others_are_given_back(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, WORKER, WORKER, WORKER]) as world:
        chosen = await choose(world)
        decision = chosen.decision
        assert decision.way == "offers"
        assert set(decision.offers) == {world.peer(n) for n in (1, 2, 3)}
        winner = world.number_of(chosen.choice.peer)
        assert chosen.claim.reservation == decision.offers[chosen.choice.peer].reservation
        await trio.sleep(0.1)
        assert [reserved(world, n) for n in (1, 2, 3)] == [int(n == winner) for n in (1, 2, 3)]
        chosen.release()
        await trio.sleep(0.1)
        assert [reserved(world, n) for n in (1, 2, 3)] == [0, 0, 0]


async def test_a_reservation_that_nobody_uses_ends_by_itself(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, WORKER, WORKER]) as world:
        await choose(world)
        await trio.sleep(2.5)
        assert [reserved(world, n) for n in (1, 2)] == [0, 0]


async def test_who_is_cancelled_while_it_chooses_leaves_nothing_reserved(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, WORKER, WORKER]) as world:
        Instead(world, placement.PROTOCOL, _silence, 2)
        with trio.move_on_after(0.005):
            await dispatch(world).choose(PYTHON, remaining_s=60.0)
        await trio.sleep(0.1)
        assert reserved(world, 1) == 0


async def _silence(_conversation: Conversation, _request: Message) -> Message:
    await trio.sleep_forever()
    raise AssertionError


async def test_no_place_is_held_while_others_are_given_a_moment_to_decide(
    virtual_time: JumpingClock,
) -> None:
    asked_at: list[float] = []
    given_back_at: list[float] = []

    async def held_for_others(conversation: Conversation, request: Message) -> Message:
        assert isinstance(request, OfferAsked)
        asked_at.append(trio.current_time())
        offer = Offer(reservation=7, wait_s=1.0, service_s=1.0, queued=1, slots=1)
        await conversation.send(offer)
        try:
            await trio.sleep(request.reserve_s)
        finally:
            given_back_at.append(trio.current_time())
        return offer

    async with open_world([ASKER, WORKER, WORKER]) as world:
        Instead(world, placement.PROTOCOL, held_for_others, 1, 2)
        chosen = await choose(world)
        assert len(asked_at) == 2 * (1 + AGAIN_TIMES)
        assert len(given_back_at) == 2 * AGAIN_TIMES, "and two are held now"
        first, again = asked_at[1], asked_at[2]
        assert max(given_back_at[:2]) - first < 0.02
        assert again - max(given_back_at[:2]) > AGAIN_S / 4
        assert chosen.decision.way == "offers"


async def test_an_offer_that_is_none_is_a_refusal(virtual_time: JumpingClock) -> None:
    async def nonsense(_conversation: Conversation, _request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        return done()

    async with open_world([ASKER, WORKER, WORKER]) as world:
        Instead(world, placement.PROTOCOL, nonsense, 1)
        chosen = await choose(world)
        assert world.number_of(chosen.choice.peer) == 2
        assert isinstance(chosen.decision.offers[world.peer(2)], Offer)
