"""Who is asked, how many at once, and what becomes of those that fail; replies are made up here."""

from __future__ import annotations

import pytest
import trio

from kowalski.node.services.model_folding import AT_A_TIME, fold_with_model
from kowalski.node.services.model_replies import Reply
from kowalski.node.services.placed_work import Completion
from kowalski.node.services.placing import Placed
from kowalski.protocol.errors import RequestFailedError
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.inference import ChatMessage, CompletionDone, Usage
from kowalski.rlm import folding, model_folding
from simulations.virtual_time import JumpingClock

pytestmark = pytest.mark.trio

TEXT = "".join(f"Pump {n} gave {n * 31 + 1000} litres to the mill.\n" for n in range(4000))


def said(text: str, peer: str) -> Completion:
    done = CompletionDone(
        model="m",
        finish_reason="stop",
        usage=Usage(prompt_tokens=100, completion_tokens=7, is_estimate=peer == "b"),
        held_s=1.0,
    )
    return Completion(text, done, Placed(PeerId(peer), peer, "", 1), Reply())


def first_line(messages: tuple[ChatMessage, ...]) -> str:
    return messages[-1].content.split("<text>\n")[1].split("\n")[0]


async def test_parts_are_asked_together_and_stand_in_their_order(
    virtual_time: JumpingClock,
) -> None:
    busy = busiest = calls = 0

    async def ask(messages: tuple[ChatMessage, ...], reply_tokens: int) -> Completion:
        nonlocal busy, busiest, calls
        busy, calls = busy + 1, calls + 1
        busiest = max(busiest, busy)
        await trio.sleep(100 - calls)  # the last asked is the first to answer
        busy -= 1
        assert 10 < reply_tokens < 3000
        return said(first_line(messages), "b" if calls % 2 else "a")

    began = trio.current_time()
    done = await fold_with_model(TEXT, budget_tokens=5000, ask=ask)
    assert busiest == AT_A_TIME < calls == done.calls
    assert trio.current_time() - began < 100 * -(-calls // AT_A_TIME)
    told = done.folded.text.split("\n\nIn its words:\n")[0].splitlines()
    assert told == sorted(told, key=lambda row: int(row.split()[1]))
    assert len(told) == calls
    assert done.usage == Usage(
        prompt_tokens=100 * calls, completion_tokens=7 * calls, is_estimate=True
    )
    assert set(done.peers) == {"a", "b"}
    assert done.failure == ""


async def test_a_part_whose_call_fails_is_folded_without_it(virtual_time: JumpingClock) -> None:
    async def ask(messages: tuple[ChatMessage, ...], _reply_tokens: int) -> Completion:
        await trio.lowlevel.checkpoint()
        if first_line(messages).startswith("Pump 0 "):
            return said(first_line(messages), "a")
        raise RequestFailedError("backend", "out of memory")

    done = await fold_with_model(TEXT, budget_tokens=5000, ask=ask)
    assert done.folded.algorithm == model_folding.ALGORITHM
    assert (done.folded.parts_by_model, done.usage.prompt_tokens) == (1, 100)
    assert "out of memory" in done.failure
    assert done.folded.tokens <= 5000


async def test_a_part_too_long_for_the_model_is_asked_in_halves(virtual_time: JumpingClock) -> None:
    refused = answered = 0

    async def ask(messages: tuple[ChatMessage, ...], _reply_tokens: int) -> Completion:
        nonlocal refused, answered
        await trio.lowlevel.checkpoint()
        if len(messages[-1].content) > 3000:
            refused += 1
            raise RequestFailedError("peers_failed", "a: too_long: it reads 8192 tokens")
        answered += 1
        return said(first_line(messages), "a")

    done = await fold_with_model(TEXT[:12_000], budget_tokens=900, ask=ask)
    assert 1 < refused < answered <= 16
    assert done.calls == refused + answered
    assert (done.folded.parts_by_model, done.failure) == (done.folded.parts, "")
    assert done.folded.text.startswith("Pump 0 gave 1000 litres")


async def test_a_model_that_reads_next_to_nothing_is_not_asked_for_ever(
    virtual_time: JumpingClock,
) -> None:
    async def ask(_messages: tuple[ChatMessage, ...], _reply_tokens: int) -> Completion:
        await trio.lowlevel.checkpoint()
        raise RequestFailedError("peers_failed", "a: too_long: it reads 5 tokens")

    done = await fold_with_model(TEXT[:12_000], budget_tokens=900, ask=ask)
    assert 1 < done.calls <= 15 * done.folded.parts
    assert done.folded.algorithm == folding.ALGORITHM
    assert "too_long" in done.failure


async def test_a_text_that_fits_asks_nobody(virtual_time: JumpingClock) -> None:
    async def ask(_messages: tuple[ChatMessage, ...], _reply_tokens: int) -> Completion:
        raise AssertionError("asked")

    done = await fold_with_model("short", budget_tokens=50, ask=ask)
    assert (done.folded.text, done.calls, done.peers) == ("short", 0, ())
    assert done.folded.algorithm == folding.ALGORITHM
