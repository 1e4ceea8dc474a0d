"""What is asked of the next peer after one was lost, and what the whole cost."""

from __future__ import annotations

import pytest

from kowalski.node.services.model_replies import (
    LOGPROBS_MAX,
    Reply,
    WholeReply,
    can_go_on,
    counted_once,
    going_on,
)
from kowalski.protocol.errors import RequestFailedError
from kowalski.protocol.limits import TEXT_BYTES_MAX
from kowalski.protocol.messages.inference import (
    ChatMessage,
    CompletionAsked,
    CompletionDelta,
    CompletionDone,
    Logprob,
    ToolCallPiece,
    Usage,
)
from kowalski.rlm.tokens import estimate_tokens

ASKED = CompletionAsked(
    model="m",
    messages=(ChatMessage(role="user", content="?"),),
    max_tokens=100,
    remaining_s=9,
)
DONE = CompletionDone(
    model="m",
    finish_reason="stop",
    usage=Usage(prompt_tokens=50, completion_tokens=7),
    held_s=1,
)


def reply_of(*texts: str) -> Reply:
    reply = Reply()
    for text in texts:
        reply.add(CompletionDelta(text=text))
    return reply


def add_all(deltas: list[CompletionDelta]) -> None:
    reply = Reply()
    for delta in deltas:
        reply.add(delta)


def test_the_rest_is_asked_for_with_what_is_left_of_the_tokens() -> None:
    text = "The whale is a mammal. "
    asked = going_on(ASKED, reply_of("The whale ", "is a mammal. "))
    assert asked.so_far == text
    assert asked.max_tokens == 100 - estimate_tokens(text)
    again = going_on(asked, reply_of("It breathes."))
    assert again.so_far == text + "It breathes."


def test_one_token_is_always_left() -> None:
    assert going_on(ASKED, reply_of("word " * 1000)).max_tokens == 1
    unlimited = ASKED.model_copy(update={"max_tokens": None})
    assert going_on(unlimited, reply_of("word")).max_tokens is None


def test_what_was_said_elsewhere_counts_as_said_and_not_as_asked() -> None:
    text = "The whale is a mammal. "
    tokens = estimate_tokens(text)
    usage = counted_once(DONE, text).usage
    assert usage == Usage(prompt_tokens=50 - tokens, completion_tokens=7 + tokens, is_estimate=True)
    assert counted_once(DONE, "") is DONE
    assert counted_once(DONE, "word " * 1000).usage.prompt_tokens == 0


def test_two_losses_are_counted_once_each() -> None:
    whole = WholeReply(ASKED, may_begin_anew=False, on_restart=lambda _: None)
    whole.reply.add(CompletionDelta(text="The whale "))
    whole.next_request()
    whole.reply.add(CompletionDelta(text="is a mammal. "))
    request = whole.next_request()
    tokens = estimate_tokens("The whale is a mammal. ")
    assert whole.done(DONE, request).usage.completion_tokens == 7 + tokens


def test_what_the_asker_had_already_is_not_counted_as_said() -> None:
    asked = ASKED.model_copy(update={"so_far": "Once "})
    whole = WholeReply(asked, may_begin_anew=False, on_restart=lambda _: None)
    assert whole.done(DONE, whole.next_request()) is DONE


def test_thoughts_alone_cannot_be_gone_on_with() -> None:
    reply = Reply()
    reply.add(CompletionDelta(thinking="hm"))
    assert not can_go_on(ASKED, reply)
    assert not reply.is_empty
    reply.add(CompletionDelta(text="so"))
    assert can_go_on(ASKED, reply)


def test_what_comes_is_bounded() -> None:
    piece = CompletionDelta(thinking="x" * 8192)
    calls = CompletionDelta(tool_calls=(ToolCallPiece(arguments="x" * 8192),))
    with pytest.raises(RequestFailedError, match="too_long"):
        add_all([piece, calls] * (TEXT_BYTES_MAX // 16384 + 1))
    many = CompletionDelta(logprobs=(Logprob(token="x", logprob=-1),) * 64)
    with pytest.raises(RequestFailedError, match="too_long"):
        add_all([many] * (LOGPROBS_MAX // 64 + 1))


def test_a_call_that_never_got_a_name_is_none() -> None:
    reply = Reply()
    reply.add(CompletionDelta(tool_calls=(ToolCallPiece(index=0, arguments="{}"),)))
    assert reply.tool_calls == ()
