"""Which peer is chosen, what is asked before, and what is learned after."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager

import pytest
import trio

from kowalski.mesh.conversation import Conversation
from kowalski.mesh.core.breaker import Params
from kowalski.mesh.core.decisions import Decision
from kowalski.mesh.core.placement import Need, choice_of
from kowalski.node.services import inference, placement
from kowalski.node.services.dispatch import Chosen, Dispatch, Sent, Work
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import TaskId
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.placement import OfferAsked
from simulations.virtual_time import JumpingClock
from simulations.world import World, open_world
from tests.node.services.prompts import ASKER, THINKER, WORKER
from tests.node.services.rooms import PatientClock
from tests.node.services.test_placed_work import Instead, done, prompt, raising

pytestmark = pytest.mark.trio

PYTHON = Work(Need("code", language="python"))


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


def dispatch(world: World) -> Dispatch:
    return world[0].work.placing.dispatch


async def choose(world: World, work: Work = PYTHON) -> Chosen:
    found = await dispatch(world).choose(work, remaining_s=60.0)
    assert isinstance(found, Chosen)
    return found


async def test_who_alone_can_is_not_asked_for_an_offer(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, WORKER]) as world:
        asked = Instead(world, placement.PROTOCOL, raising(RequestFailedError("internal")), 1)
        chosen = await choose(world)
        assert chosen.decision.way == "only"
        assert world.number_of(chosen.choice.peer) == 1
        assert asked.asked == []


async def test_a_mere_question_shows_offers_even_of_who_alone_can(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, WORKER]) as world:
        found = await dispatch(world).choose(
            PYTHON, remaining_s=60.0, reserve_s=0.0, always_asks=True
        )
        assert isinstance(found, Chosen)
        assert set(found.decision.offers) == {world.peer(1)}
        assert found.claim.reservation is None


async def test_work_that_was_seen_to_be_short_is_sent_without_asking(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, THINKER, THINKER]) as world:
        await world[0].work.complete(prompt())
        asked = Instead(world, placement.PROTOCOL, raising(RequestFailedError("internal")), 1, 2)
        await world[0].work.complete(prompt())
        assert asked.asked == []
        assert dispatch(world).decisions.latest(1)[0][1].way == "direct"


async def test_a_peer_that_fails_three_times_is_left_out_for_a_while_and_then_tried_once(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, *[THINKER] * 4]) as world:
        work = Work(Need("inference", model="m"))
        bad = world.peer(1)
        for _ in range(Params().failures_in_a_row):
            with pytest.raises(RequestFailedError):
                await _fail_at(world, work, 1)
        rejections = {no.peer: no.why for no in dispatch(world).rank(work.need).rejections}
        assert rejections[bad] == "it failed too often lately"
        await trio.sleep(Params().open_s)
        assert bad not in {no.peer for no in dispatch(world).rank(work.need).rejections}
        with _sending_to(world, work, 1), _sending_to(world, work, 1):
            assert dispatch(world).probes() == [(bad, "inference")]
            assert dispatch(world).under_way == 2
        assert (dispatch(world).probes(), dispatch(world).under_way) == ([], 0)


def _sending_to(world: World, work: Work, number: int) -> AbstractContextManager[Sent]:
    ranking = dispatch(world).rank(work.need)
    peer = world.peer(number)
    one = next(one for one in dispatch(world).candidates(work.need) if one.peer == peer)
    decision = Decision(0.0, work.need, "direct", ranking, peer, "")
    chosen = Chosen(choice_of(work.need, one), decision, work.claim, 1.0, 1.0, lambda: None)
    return dispatch(world).sending(work, chosen)


async def _fail_at(world: World, work: Work, number: int) -> None:
    with _sending_to(world, work, number):
        await trio.lowlevel.checkpoint()
        raise RequestFailedError("backend", "it died")


def is_probed(world: World, number: int) -> bool:
    probes = world[0].mesh.detection.state.probes.values()
    return any(one.peer == world.peer(number) for one in probes)


async def rest_between_probes(world: World, number: int) -> None:
    while is_probed(world, number):  # noqa: ASYNC110 virtual time
        await trio.sleep(0.001)


@pytest.mark.parametrize(
    ("error", "is_doubted"),
    [
        (PeerUnreachableError("no answer within 5 s"), True),
        (RequestFailedError("backend", "who says so is there"), False),
        (RequestRefusedError("busy"), False),
    ],
)
async def test_a_request_without_an_answer_is_a_reason_to_probe_and_no_verdict(
    virtual_time: JumpingClock, error: Exception, *, is_doubted: bool
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        work, mesh = Work(Need("inference", model="m")), world[0].mesh
        await rest_between_probes(world, 1)
        with pytest.raises(type(error)), _sending_to(world, work, 1):
            raise error
        assert is_probed(world, 1) == is_doubted
        assert mesh.state_of(world.peer(1)) == "alive"
        await trio.sleep(5)
        assert mesh.state_of(world.peer(1)) == "alive", "it has answered the probe"
        assert mesh.is_routable(world.peer(1))


@pytest.mark.parametrize(("after_s", "is_doubted"), [(2.5, False), (3.5, True)])
async def test_a_peer_that_was_given_up_long_after_its_promise_is_probed(
    virtual_time: JumpingClock, after_s: float, *, is_doubted: bool
) -> None:
    async with open_world([ASKER, THINKER]) as world:
        work = Work(Need("inference", model="m"))
        with (
            trio.CancelScope() as patience,
            _sending_to(world, work, 1) as sent,
        ):
            await trio.sleep(after_s)
            sent.is_given_up = True
            await rest_between_probes(world, 1)
            patience.cancel()
            await trio.lowlevel.checkpoint_if_cancelled()
        assert is_probed(world, 1) == is_doubted


async def test_a_node_does_not_doubt_itself(virtual_time: JumpingClock) -> None:
    async with open_world([THINKER]) as world:
        work = Work(Need("inference", model="m"))
        for _ in range(8):
            with trio.CancelScope() as patience, _sending_to(world, work, 0) as sent:
                await trio.sleep(3.5)
                sent.is_given_up = True
                patience.cancel()
                await trio.lowlevel.checkpoint_if_cancelled()
        (itself,) = dispatch(world).candidates(work.need)
        assert itself.is_admitted


async def test_a_program_that_fails_is_not_held_against_its_peer(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, THINKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, raising(RequestFailedError("bad_request", "?")), 1, 2)
        for _ in range(8):
            with pytest.raises(RequestFailedError):
                await world[0].work.complete(prompt())
        assert dispatch(world).rank(Need("inference", model="m")).rejections[0].why == (
            "does not offer infer"
        )
        assert len(dispatch(world).rank(Need("inference", model="m")).choices) == 2


async def test_a_peer_that_takes_longer_than_it_says_gets_less(virtual_time: JumpingClock) -> None:
    async def slow(_conversation: Conversation, _request: Message) -> Message:
        await trio.sleep(100)  # ten times as long as it says
        return done()

    async with open_world([ASKER, THINKER, THINKER]) as world:
        liar = Instead(world, inference.PROTOCOL, slow, 1)
        fast = Instead(world, inference.PROTOCOL, _one_second, 2)
        patient = prompt(remaining_s=600.0)
        for _ in range(20):
            await world[0].work.complete(patient)
        assert len(liar.asked) <= 2
        assert len(fast.asked) >= 18


async def _one_second(_conversation: Conversation, _request: Message) -> Message:
    await trio.sleep(1)
    return done()


async def test_every_choice_is_kept_with_what_it_was_made_from(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, WORKER, WORKER]) as world:
        task = TaskId("t")
        await choose(world, dataclasses.replace(PYTHON, task=task))
        (kept_for, decision) = dispatch(world).decisions.latest(1)[0]
        assert kept_for.task == task
        assert decision.chosen in decision.offers
        assert [no.why for no in decision.ranking.rejections] == ["does not offer repl"]
        assert decision.ranking.choices[0].candidate.occupancy["code"].slots == 4
        assert decision.expected_s is not None
        assert "offers to be done in" in decision.why


async def test_when_all_are_full_it_is_told_when_somebody_is_not(
    virtual_time: JumpingClock,
) -> None:
    async def full(_conversation: Conversation, request: Message) -> Message:
        assert isinstance(request, OfferAsked)
        await trio.lowlevel.checkpoint()
        raise RequestRefusedError("busy", "full", 0.7)

    async with open_world([ASKER, WORKER, WORKER]) as world:
        Instead(world, placement.PROTOCOL, full, 1, 2)
        found = await dispatch(world).choose(PYTHON, remaining_s=60.0)
        assert isinstance(found, Decision)
        assert (found.chosen, found.retry_after_s) == (None, 0.7)
        assert set(found.refusals) == {world.peer(1), world.peer(2)}


async def test_where_offers_cannot_be_had_the_best_is_asked_for_the_work(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, WORKER, WORKER]) as world:
        Instead(world, placement.PROTOCOL, raising(RequestFailedError("internal", "bug")), 1, 2)
        chosen = await choose(world)
        assert chosen.decision.way == "direct"


async def test_the_one_who_read_the_beginning_is_considered_first(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, *[THINKER] * 3]) as world:
        await world[0].work.complete(prompt("a long story"))
        reader = next(n for n in (1, 2, 3) if world.places[n].calls)
        work, _ = world[0].work._model_work(prompt("a long story"), ())
        known = dispatch(world).candidates(work.need, work.prefixes)
        holders = [world.number_of(one.peer) for one in known if one.holds_prefix]
        assert holders == [reader]


async def test_who_left_is_forgotten(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, *[THINKER] * 3]) as world:
        work = Work(Need("inference", model="m"))
        for _ in range(3):
            with pytest.raises(RequestFailedError):
                await _fail_at(world, work, 1)
        dispatch(world).forget(world.peer(1))
        assert world.peer(1) not in {no.peer for no in dispatch(world).rank(work.need).rejections}
