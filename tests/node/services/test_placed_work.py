"""Work sent from one node to others: who is tried next, when, how often, and what is said of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from kowalski.mesh.conversation import Answer, Conversation
from kowalski.mesh.core.placement import Need
from kowalski.node.core import tries
from kowalski.node.services import folding, inference, repl
from kowalski.node.services.placed_work import ANY_MODEL
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RequestFailedError,
    RequestRefusedError,
)
from kowalski.protocol.ids import ContentHash, TaskId
from kowalski.protocol.limits import TEXT_BYTES_MAX
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentRef
from kowalski.protocol.messages.folding import FoldAsked, FoldDone
from kowalski.protocol.messages.inference import (
    ChatMessage,
    CompletionAsked,
    CompletionDelta,
    CompletionDone,
    Usage,
)
from kowalski.protocol.messages.membership import RoundTrip
from kowalski.protocol.messages.repl import CellAsked, CellDone, SubCall, SubCallResult
from kowalski.protocol.messages.telemetry import Hot
from simulations.virtual_time import JumpingClock
from simulations.world import Part, World, open_world
from tests.node.services.prompts import ASKER, THINKER, WORKER
from tests.node.services.rooms import PatientClock

pytestmark = pytest.mark.trio

FOLDER = Part(languages={}, roles=("fold",))


@pytest.fixture
def virtual_time() -> JumpingClock:
    return PatientClock()


def prompt(text: str = "hello", *, model: str = "m", remaining_s: float = 30.0) -> CompletionAsked:
    messages = (ChatMessage(role="user", content=text),)
    return CompletionAsked(model=model, messages=messages, remaining_s=remaining_s)


def program(code: str, **more: Any) -> CellAsked:  # noqa: ANN401 fields of the message
    given = {"language": "python", "timeout_s": 30.0, "remaining_s": 60.0, **more}
    return CellAsked(task=TaskId("run-1"), term=1, cell=0, code=code, keeps_session=False, **given)


def fold_of(text: str, *, budget_tokens: int = 50, remaining_s: float = 60.0) -> FoldAsked:
    return FoldAsked(text=text, budget_tokens=budget_tokens, remaining_s=remaining_s)


def done(hot: Hot | None = None) -> CompletionDone:
    usage = Usage(prompt_tokens=1, completion_tokens=1)
    return CompletionDone(model="m", finish_reason="stop", usage=usage, held_s=0.0, hot=hot)


def best(world: World, need: Need) -> int:
    """Which node the first piece of work goes to."""
    choice = world[0].mesh.rank(need).best
    assert choice is not None
    return world.number_of(choice.peer)


INFERENCE = Need("inference", model="m")


class Instead:
    """Answers a protocol on nodes of a world in place of their rooms, and counts who was asked."""

    def __init__(self, world: World, protocol: str, answer: Answer, *numbers: int) -> None:
        self.asked: list[int] = []
        for number in numbers:
            world[number].mesh.serve(protocol, self._counted(number, answer))

    def _counted(self, number: int, answer: Answer) -> Answer:
        async def counted(conversation: Conversation, request: Message) -> Message:
            self.asked.append(number)
            await trio.lowlevel.checkpoint()
            return await answer(conversation, request)

        return counted


class OnlyFirst(Instead):
    """The first who is asked, whoever that is, answers so; the others have said `then`."""

    def __init__(
        self, world: World, protocol: str, first: Answer, then: Answer, *numbers: int
    ) -> None:
        async def answer(conversation: Conversation, request: Message) -> Message:
            say = first if len(self.asked) == 1 else then
            return await say(conversation, request)

        super().__init__(world, protocol, answer, *numbers)


async def reply_to_hello(conversation: Conversation, _request: Message) -> Message:
    await conversation.send(CompletionDelta(text="reply to: hello"))
    return done()


def raising(error: Exception) -> Answer:
    async def answer(_conversation: Conversation, _request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        raise error

    return answer


async def something_else(_conversation: Conversation, _request: Message) -> Message:
    await trio.lowlevel.checkpoint()
    return RoundTrip()


async def too_much(conversation: Conversation, _request: Message) -> Message:
    for _ in range(TEXT_BYTES_MAX // 10_000 + 1):
        await conversation.send(CompletionDelta(text="x" * 10_000))
    return done()


# --- the next peer ------------------------------------------------------------------------------

ELSEWHERE = {
    "refused": (raising(RequestRefusedError("draining", "going")), "draining: going"),
    "failed": (raising(RequestFailedError("backend", "it died")), "backend: it died"),
    "a defect": (raising(ValueError("oops")), "internal: ValueError: oops"),
    "unreachable": (raising(PeerUnreachableError("a third is gone")), "unreachable: a third"),
    "no such message": (something_else, "membership/round-trip in answer to inference/completion"),
    "too long": (too_much, "too_long: a reply of over "),
}


@pytest.mark.parametrize("trouble", ELSEWHERE)
async def test_what_fails_at_one_peer_is_tried_at_the_next_and_told(
    virtual_time: JumpingClock, trouble: str
) -> None:
    answer, words = ELSEWHERE[trouble]
    told: list[str] = []
    async with open_world([ASKER, THINKER, THINKER]) as world:
        instead = OnlyFirst(world, inference.PROTOCOL, answer, reply_to_hello, 1, 2)
        reply = await world[0].work.complete(prompt(), on_restart=told.append)
        first, second = instead.asked
        assert first + second == 3
        assert reply.text == "reply to: hello"
        assert (world.number_of(reply.placed.peer), reply.placed.attempts) == (second, 2)
        assert reply.placed.name == f"node-{3 - first}"
        (complaint,) = told
        assert complaint.startswith(f"node-{first}: {words}")


@pytest.mark.parametrize("code", ["bad_request", "timeout"])
async def test_what_another_peer_would_only_repeat_is_not_asked_again(
    virtual_time: JumpingClock, code: str
) -> None:
    told: list[str] = []
    async with open_world([ASKER, THINKER, THINKER]) as world:
        answer = raising(RequestFailedError(code, "as always"))
        instead = Instead(world, inference.PROTOCOL, answer, 1, 2)
        with pytest.raises(RequestFailedError, match=f"^{code}: as always$"):
            await world[0].work.complete(prompt(), on_restart=told.append)
        assert len(instead.asked) == 1
        assert told == []


async def test_three_peers_may_fail_and_the_words_of_all_are_in_the_error(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, *[THINKER] * 5]) as world:
        answer = raising(RequestFailedError("backend", "no luck"))
        instead = Instead(world, inference.PROTOCOL, answer, *range(1, 6))
        with pytest.raises(RequestFailedError) as failed:
            await world[0].work.complete(prompt())
        assert len(set(instead.asked)) == len(instead.asked) == tries.ATTEMPTS_MAX
        words = "; ".join(f"node-{number}: backend: no luck" for number in instead.asked)
        assert str(failed.value) == f"peers_failed: {words}"


async def test_when_all_refuse_the_last_reason_is_told_with_the_words_of_all(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, FOLDER, FOLDER]) as world:
        answer = raising(RequestRefusedError("too_large", "33 MB", 5.0))
        instead = Instead(world, folding.PROTOCOL, answer, 1, 2)
        with pytest.raises(RequestRefusedError) as refused:
            await world[0].work.fold(fold_of("text"))
        assert (refused.value.reason, refused.value.retry_after_s) == ("too_large", 5.0)
        words = "; ".join(f"node-{number}: too_large: 33 MB" for number in instead.asked)
        assert refused.value.detail == words


async def test_a_peer_that_says_nothing_is_given_up_when_the_time_is_over(
    virtual_time: JumpingClock,
) -> None:
    async def silence(_conversation: Conversation, _request: Message) -> Message:
        await trio.sleep_forever()
        raise AssertionError

    async with open_world([ASKER, THINKER]) as world:
        Instead(world, inference.PROTOCOL, silence, 1)
        before = trio.current_time()
        with pytest.raises(RequestFailedError, match=r"^timeout: no answer within 4 s$"):
            await world[0].work.complete(prompt(remaining_s=4.0))
        assert trio.current_time() - before == pytest.approx(4.0, abs=0.1)


async def test_who_was_cancelled_before_asks_nobody(virtual_time: JumpingClock) -> None:
    async with open_world([Part(models=("m",))]) as world:
        instead = Instead(world, inference.PROTOCOL, reply_to_hello, 0)
        with trio.CancelScope() as scope:
            scope.cancel()
            await world[0].work.complete(prompt())
        assert (scope.cancelled_caught, instead.asked) == (True, [])


async def test_a_model_of_our_own_that_does_not_end_is_stopped_when_the_time_is_over(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([Part(models=("m",), delay_per_token_s=1000.0)]) as world:
        before = trio.current_time()
        for _ in range(3):
            with pytest.raises(RequestFailedError, match=r"^timeout: no answer within 4 s$"):
                await world[0].work.complete(prompt(remaining_s=4.0))
        assert trio.current_time() - before == pytest.approx(12.0, abs=0.1)
        assert (
            world[0].mesh.rank(INFERENCE).choices[0].candidate.occupancy["inference"].running == 0
        )


# --- the busy -----------------------------------------------------------------------------------


async def test_those_who_are_busy_are_asked_again_until_one_has_room(
    virtual_time: JumpingClock,
) -> None:
    told: list[str] = []
    free_at = trio.current_time() + 20.0

    async def answer(_conversation: Conversation, _request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        if trio.current_time() < free_at:
            raise RequestRefusedError("busy", "all taken", 1.0)
        return done()

    async with open_world([ASKER, THINKER, THINKER]) as world:
        instead = Instead(world, inference.PROTOCOL, answer, 1, 2)
        reply = await world[0].work.complete(prompt(remaining_s=60.0), on_restart=told.append)
        assert 20.0 <= trio.current_time() < 20.0 + 2 * tries.BUSY_WAIT_S_MAX
        assert reply.placed.attempts == 1, "full is not broken"
        assert told == []
        assert 20 < len(instead.asked) < 60, "patiently, and both in turn"
        assert {1, 2} == set(instead.asked)


async def test_who_waits_in_vain_hears_busy_and_from_whom(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, THINKER]) as world:
        busy = raising(RequestRefusedError("busy", "all taken", 1.0))
        Instead(world, inference.PROTOCOL, busy, 1)
        with pytest.raises(RequestRefusedError) as refused:
            await world[0].work.complete(prompt(remaining_s=5.0))
        assert str(refused.value) == "busy: for 5 s; node-1: busy: all taken"


async def test_a_broken_peer_is_not_asked_again_while_the_busy_are_waited_for(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, THINKER, THINKER]) as world:
        broken = Instead(
            world, inference.PROTOCOL, raising(RequestFailedError("backend", "dead")), 1
        )
        busy = Instead(world, inference.PROTOCOL, raising(RequestRefusedError("busy", "full")), 2)
        with pytest.raises(RequestRefusedError, match="busy: for 10 s; node-2: busy: full"):
            await world[0].work.complete(prompt(remaining_s=10.0))
        assert len(broken.asked) == 1
        assert len(busy.asked) > 5


async def test_all_slots_of_a_real_room_are_waited_for(virtual_time: JumpingClock) -> None:
    slow = dataclasses.replace(THINKER, model_slots=1, delay_per_token_s=1.0)
    async with open_world([ASKER, slow, slow]) as world, trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(world[0].work.complete, prompt(str(number), remaining_s=60.0))
        await world.until(lambda: len(world.calls) == 6)
        assert min(len(place.calls) for place in world.places[1:]) >= 2


# --- nobody -------------------------------------------------------------------------------------


async def complete(world: World, model: str) -> object:
    return await world[0].work.complete(prompt(model=model))


async def run(world: World, language: str) -> object:
    return await world[0].work.run_alone(
        program("say x", language=language), on_output=_unheard, on_restart=_unsaid
    )


def _unheard(_stream: str, _data: bytes) -> None:
    pass


def _unsaid(_why: str) -> None:
    pass


NOBODY: dict[str, tuple[Callable[[World], Awaitable[object]], str]] = {
    "model": (lambda world: complete(world, "big"), "no peer has model big ("),
    "any model": (lambda world: complete(world, ANY_MODEL), "no peer has a model ("),
    "language": (lambda world: run(world, "perl"), "no peer runs perl ("),
    "folding": (lambda world: world[0].work.fold(fold_of("x")), "no peer folds ("),
}


@pytest.mark.parametrize("need", NOBODY)
async def test_where_nobody_can_that_is_said_at_once_and_of_each_why(
    virtual_time: JumpingClock, need: str
) -> None:
    ask, words = NOBODY[need]
    async with open_world([ASKER, WORKER]) as world:
        before = trio.current_time()
        with pytest.raises(RequestRefusedError) as refused:
            await ask(world)
        assert refused.value.reason == "no_peer"
        assert refused.value.detail.startswith(words)
        assert "node-0: does not offer" in refused.value.detail
        assert "node-1: " in refused.value.detail
        assert trio.current_time() - before < 0.1


# --- who may ------------------------------------------------------------------------------------


async def test_any_model_means_what_the_chosen_peer_prefers(virtual_time: JumpingClock) -> None:
    two = dataclasses.replace(THINKER, models=("zebra", "aardvark"))
    async with open_world([ASKER, two]) as world:
        profile = world[0].mesh.facts_of(world.peer(1)).profile
        assert profile is not None
        reply = await world[0].work.complete(prompt(model=ANY_MODEL))
        assert reply.done.model == profile.models[0].name


async def test_our_own_node_is_a_peer_like_any_other(virtual_time: JumpingClock) -> None:
    async with open_world([Part(models=("m",))]) as world:
        reply = await world[0].work.complete(prompt())
        assert (reply.text, reply.placed.peer) == ("reply to: hello", world.peer(0))
        out: list[bytes] = []
        cell, placed = await world[0].work.run_alone(
            program("say x"), on_output=lambda _stream, data: out.append(data), on_restart=_unsaid
        )
        assert (cell.stdout, out, placed.peer) == ("x\n", [b"x\n"], world.peer(0))
        assert (await world[0].work.fold(fold_of("a text"))).text == "a text"


CELL_DONE = CellDone(
    task=TaskId("run-1"),
    cell=0,
    status="ok",
    stdout="",
    stderr="",
    stdout_bytes=0,
    stderr_bytes=0,
    is_session_alive=False,
    duration_s=0.0,
    held_s=0.0,
)
FOLD_DONE = FoldDone(text="x", source_tokens=9, tokens=3, algorithm="a", held_s=0.0)

REPLIES: dict[str, tuple[str, Message, Callable[[World], Awaitable[object]]]] = {
    "call": (inference.PROTOCOL, done(), lambda world: complete(world, "m")),
    "cell": (repl.PROTOCOL, CELL_DONE, lambda world: run(world, "python")),
    "fold": (folding.PROTOCOL, FOLD_DONE, lambda world: world[0].work.fold(fold_of("x"))),
}


@pytest.mark.parametrize("kind", REPLIES)
async def test_what_a_reply_says_of_its_peer_is_heard_at_once(
    virtual_time: JumpingClock, kind: str
) -> None:
    protocol, reply, ask = REPLIES[kind]
    hot = Hot(memory_used=0.77)

    async def answer(_conversation: Conversation, _request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        return reply.model_copy(update={"hot": hot})

    async with open_world([ASKER, Part(models=("m",))]) as world:
        Instead(world, protocol, answer, 1)
        await ask(world)
        assert world[0].mesh.facts_of(world.peer(1)).hot == hot


async def test_work_sent_at_the_same_moment_is_spread(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, THINKER, THINKER]) as world:
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(world[0].work.complete, prompt(str(number)))
        assert min(len(place.calls) for place in world.places[1:]) >= 2


# --- programs -----------------------------------------------------------------------------------


async def test_a_program_is_run_on_another_peer_when_the_first_is_killed(
    virtual_time: JumpingClock,
) -> None:
    told: list[str] = []
    out: list[bytes] = []
    async with open_world([ASKER, WORKER, WORKER]) as world, trio.open_nursery() as nursery:

        async def kill() -> None:
            await world.until(lambda: bool(world.cells))
            await world.kill(1 if world.places[1].cells else 2)

        nursery.start_soon(kill)
        cell, placed = await world[0].work.run_alone(
            program("wait 5\nsay done"),
            on_output=lambda _stream, data: out.append(data),
            on_restart=told.append,
        )
        assert (cell.status, placed.attempts, len(told)) == ("ok", 2, 1)
        assert b"".join(out) == b"done\n"
        assert len(world.cells) == 2


async def test_a_program_that_is_run_alone_asks_nobody(virtual_time: JumpingClock) -> None:
    async with open_world([ASKER, WORKER, THINKER]) as world:
        cell, _ = await world[0].work.run_alone(
            program("ask-many 3 q"), on_output=_unheard, on_restart=_unsaid
        )
        assert cell.stdout == "[a program that is run alone asks nobody]\n" * 3
        assert world.calls == []


async def test_a_program_that_fails_has_run_and_is_not_run_again(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, WORKER, WORKER]) as world:
        cell, placed = await world[0].work.run_alone(
            program("fail it broke"), on_output=_unheard, on_restart=_unsaid
        )
        assert (cell.status, cell.error, placed.attempts) == ("error", "it broke", 1)
        assert len(world.cells) == 1


async def test_results_of_sub_calls_may_be_larger_than_a_frame_together(
    virtual_time: JumpingClock,
) -> None:
    heard: list[int] = []

    async def answer(calls: tuple[SubCall, ...]) -> tuple[SubCallResult, ...]:
        await trio.sleep(1.0)
        heard.append(len(calls))
        return tuple(SubCallResult(text="y" * TEXT_BYTES_MAX) for _ in calls)

    async with open_world([ASKER, WORKER]) as world:
        before = trio.current_time()
        cell = await world[0].work.run_cell(
            world.peer(1), program("ask-many 7 q"), _unheard, answer
        )
        assert cell.status == "ok"
        assert cell.stdout_bytes == 7 * (TEXT_BYTES_MAX + 1)
        assert sum(heard) == 7
        assert trio.current_time() - before < 2.0, "batches are answered side by side"


async def test_a_word_out_of_place_ends_the_conversation_about_a_cell(
    virtual_time: JumpingClock,
) -> None:
    async with open_world([ASKER, WORKER]) as world:
        Instead(world, repl.PROTOCOL, something_else, 1)
        with pytest.raises(RequestFailedError, match="membership/round-trip in answer to repl/"):
            await run(world, "python")


# --- folds --------------------------------------------------------------------------------------


async def test_a_fold_longer_than_a_message_is_fetched_by_its_hash(
    virtual_time: JumpingClock,
) -> None:
    text = "\N{CJK UNIFIED IDEOGRAPH-6F22}" * TEXT_BYTES_MAX
    async with open_world([ASKER, FOLDER]) as world:
        content = await world[0].store.put(text.encode())
        asked = FoldAsked(content=content, budget_tokens=10_000_000, remaining_s=60.0)
        folded = await world[0].work.fold(asked)
        assert folded.text == text
        assert folded.done.content is not None


LOST = ContentRef(hash=ContentHash("0" * 64), bytes_total=10)


@pytest.mark.parametrize("content", [LOST, None])
async def test_a_fold_whose_text_cannot_be_had_is_made_elsewhere(
    virtual_time: JumpingClock, content: ContentRef | None
) -> None:
    async def answer(_conversation: Conversation, _request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        return FoldDone(content=content, source_tokens=9, tokens=3, algorithm="a", held_s=0.0)

    async def here(_conversation: Conversation, _request: Message) -> Message:
        await trio.lowlevel.checkpoint()
        return FoldDone(text="a text", source_tokens=9, tokens=3, algorithm="a", held_s=0.0)

    async with open_world([ASKER, FOLDER, FOLDER]) as world:
        instead = OnlyFirst(world, folding.PROTOCOL, answer, here, 1, 2)
        folded = await world[0].work.fold(fold_of("a text"))
        first, second = instead.asked
        assert first + second == 3
        assert (folded.text, world.number_of(folded.placed.peer)) == ("a text", second)
