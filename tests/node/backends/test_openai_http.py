"""The OpenAI dialect against every way in which a server can fail."""

from __future__ import annotations

import json

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.backends.answers import Answer
from kowalski.node.backends.http import open_http
from kowalski.node.backends.openai_words import ChunkReader, WholeReader, take_completion
from kowalski.node.backends.seam import BackendError, Completed, Delta, ModelInfo
from tests.node.backends.asking import (
    FAILURES,
    ask,
    ask_in_vain,
    estimate,
    exhaust,
    openai_at,
    question,
)
from tests.scripted_model_server import Act, Fault, Script, open_scripted_server


@pytest.mark.trio
async def test_an_answer_comes_in_pieces_and_ends_with_the_usage_of_the_server() -> None:
    async with open_scripted_server("one two three") as server, open_http() as http:
        events = await ask(openai_at(server.url, http), question())
    assert events == [Delta("one"), Delta(" two"), Delta(" three"), Completed("stop", 2, 3, False)]


@pytest.mark.trio
async def test_all_that_was_asked_reaches_the_server_and_nothing_else() -> None:
    request = question("Größe?", max_tokens=2, temperature=0.5, stop=("\n",))
    async with open_scripted_server("one two three") as server, open_http() as http:
        events = await ask(openai_at(server.url, http), request)
        await ask(openai_at(server.url, http), question("x"))
    assert events[-1] == Completed("length", 1, 2, False)
    assert server.calls[0].body == {
        "model": "scripted",
        "messages": [{"role": "user", "content": "Größe?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 2,
        "temperature": 0.5,
        "stop": ["\n"],
    }
    assert set(server.calls[1].body) == {"model", "messages", "stream", "stream_options"}


@pytest.mark.trio
@pytest.mark.parametrize(("fault", "after", "code"), FAILURES)
async def test_every_way_to_fail_has_its_code(fault: Fault, after: int, code: str) -> None:
    script = Script(otherwise=Act("a b c d", fault, after))
    async with open_scripted_server(script) as server, open_http() as http:
        error = await ask_in_vain(openai_at(server.url, http), question(), idle_timeout_s=0.2)
    assert error.code == code
    assert error.retry_after_s == (7 if code == "overloaded" else None)


@pytest.mark.trio
@pytest.mark.parametrize("after", [0, 2])
async def test_keepalive_comments_are_no_progress(after: int) -> None:
    script = Script(otherwise=Act("a b c d", "keepalive", after))
    async with open_scripted_server(script) as server, open_http() as http:
        with trio.fail_after(2):
            error = await ask_in_vain(openai_at(server.url, http), question(), idle_timeout_s=0.3)
        assert error.code == "stalled"
        with trio.fail_after(1):
            await server.wait_until(lambda stats: stats.clients_left == 1)


@pytest.mark.trio
async def test_a_slow_answer_is_no_stalled_one() -> None:
    script = Script(otherwise=Act("a b c d", delay_per_token_s=0.1))
    async with open_scripted_server(script) as server, open_http() as http:
        events = await ask(openai_at(server.url, http), question(), idle_timeout_s=0.25)
    assert len(events) == 5


@pytest.mark.trio
async def test_what_came_before_a_failure_was_delivered() -> None:
    script = Script(otherwise=Act("a b c d", "stall", 2))
    async with open_scripted_server(script) as server, open_http() as http:
        backend = openai_at(server.url, http)
        async with backend.complete(question(), idle_timeout_s=0.2) as stream:
            assert [await anext(stream), await anext(stream)] == [Delta("a"), Delta(" b")]
            with pytest.raises(BackendError):
                await anext(stream)


@pytest.mark.trio
async def test_usage_that_the_server_does_not_give_is_estimated_and_says_so() -> None:
    script = Script(otherwise=Act("one two three", sends_usage=False))
    async with open_scripted_server(script) as server, open_http() as http:
        events = await ask(openai_at(server.url, http), question())
    assert events[-1] == Completed("stop", 1002, 1003, True)


@pytest.mark.trio
async def test_an_end_with_a_reason_but_without_the_done_mark_is_an_end() -> None:
    script = Script(otherwise=Act("one two", "no_done", 1))
    async with open_scripted_server(script) as server, open_http() as http:
        events = await ask(openai_at(server.url, http), question())
    assert events == [Delta("one"), Completed("stop", 1002, 1001, True)]


@pytest.mark.trio
async def test_a_server_that_goes_silent_after_the_end_of_its_answer_has_answered() -> None:
    script = Script(otherwise=Act("one two", "no_end", 1))
    async with open_scripted_server(script) as server, open_http() as http:
        events = await ask(openai_at(server.url, http), question(), idle_timeout_s=0.2)
    assert events == [Delta("one"), Completed("stop", 1002, 1001, True)]


@pytest.mark.trio
@pytest.mark.parametrize("is_by_cancelling", [True, False])
async def test_the_server_notices_within_a_second_that_nobody_listens(
    is_by_cancelling: bool,
) -> None:
    script = Script(otherwise=Act("a b c d", "stall", 1))
    async with open_scripted_server(script) as server, open_http() as http:
        backend = openai_at(server.url, http)
        with trio.CancelScope() as scope:
            async with backend.complete(question(), idle_timeout_s=60) as stream:
                await anext(stream)
                assert server.stats.in_flight == 1
                if is_by_cancelling:
                    scope.cancel()
                    await exhaust(stream)
        with trio.fail_after(1):
            await server.wait_until(lambda stats: stats.clients_left == 1)
        assert server.stats.in_flight == 0


@pytest.mark.trio
async def test_giving_up_before_the_first_token_reaches_the_server_too() -> None:
    async with open_scripted_server(Script(otherwise=Act("", "silent"))) as server:
        async with open_http() as http, trio.open_nursery() as nursery:
            nursery.start_soon(ask, openai_at(server.url, http), question())
            await server.wait_until(lambda stats: stats.in_flight == 1)
            nursery.cancel_scope.cancel()
        with trio.fail_after(1):
            await server.wait_until(lambda stats: stats.clients_left == 1)


@pytest.mark.trio
async def test_one_connection_serves_one_answer_after_the_other() -> None:
    async with open_scripted_server("one two") as server, open_http() as http:
        for _ in range(5):
            await ask(openai_at(server.url, http), question())
        assert server.stats.connections == 1
        assert server.stats.clients_left == 0


@pytest.mark.trio
async def test_a_missing_or_wrong_key_is_named_in_words() -> None:
    async with open_scripted_server(api_key="right") as server, open_http() as http:
        without = await ask_in_vain(openai_at(server.url, http), question())
        wrong = await ask_in_vain(openai_at(server.url, http, "wrong"), question())
        with pytest.raises(BackendError):
            await openai_at(server.url, http, "wrong").health()
        assert await ask(openai_at(server.url, http, "right"), question())
    assert (without.code, wrong.code) == ("rejected", "rejected")
    assert "wants an API key" in without.detail
    assert "was refused" in wrong.detail


@pytest.mark.trio
async def test_an_unknown_model_is_missing() -> None:
    async with open_scripted_server() as server, open_http() as http:
        error = await ask_in_vain(openai_at(server.url, http), question(model="other"))
    assert error.code == "model_missing"
    assert "other" in error.detail


@pytest.mark.trio
async def test_models_are_listed() -> None:
    async with open_scripted_server(models=("a", "b")) as server, open_http() as http:
        backend = openai_at(server.url, http)
        await backend.health()
        models = await backend.list_models()
    assert models == (ModelInfo("a", None, True, 4), ModelInfo("b", None, True, 4))


def read_chunks(*payloads: object, done: bool = True) -> tuple[list[object], Answer]:
    answer = Answer(question(), estimate)
    reader = ChunkReader(answer)
    texts = [json.dumps(payload) for payload in payloads] + (["[DONE]"] if done else [])
    events, _ = reader.feed("".join(f"data: {text}\n\n" for text in texts).encode())
    return [*events, *reader.finish()], answer


def test_the_shapes_that_servers_send_are_all_understood() -> None:
    events, answer = read_chunks(
        {"object": "chat.completion", "choices": [{"delta": {"role": "assistant"}}]},
        {"choices": [{"delta": {"content": None}, "finish_reason": None}]},
        {"choices": [{"delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"delta": {"content": "x"}, "finish_reason": "length"}], "usage": None},
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3, "x": {}}},
    )
    assert events == [Delta(thinking="hm"), Delta("x")]
    assert answer.completed() == Completed("length", 5, 3, False, thinking_tokens=3)


@pytest.mark.parametrize(
    "usage", ["many", {"prompt_tokens": -1, "completion_tokens": True}, {"prompt_tokens": 1.5}, []]
)
def test_usage_that_is_no_count_is_estimated(usage: object) -> None:
    _, answer = read_chunks({"choices": [{"finish_reason": "stop"}], "usage": usage})
    assert answer.completed() == Completed("stop", 1002, 1000, True)


@pytest.mark.parametrize(
    ("code", "expected"),
    [(429, "overloaded"), (503, "overloaded"), (404, "model_missing"), (500, "bad_reply")],
)
def test_an_error_in_the_stream_keeps_its_meaning(code: int, expected: str) -> None:
    with pytest.raises(BackendError, match="the reason") as caught:
        read_chunks({"error": {"message": "the reason", "code": code}})
    assert caught.value.code == expected


def test_a_server_that_does_not_stream_is_understood() -> None:
    answer = Answer(question(), estimate)
    reader = WholeReader(answer)
    choice = {"message": {"content": "all of it"}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice]}).encode()
    assert reader.feed(body[:9]) == ([], True)
    assert reader.feed(body[9:]) == ([], True)
    assert reader.finish() == [Delta("all of it")]
    assert answer.finish_reason == "stop"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "content", "error", "usage", "finish_reason", "message"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["choices", "error", "usage"]), json_values))
def test_no_object_does_more_harm_than_a_bad_reply(value: dict[str, object]) -> None:
    try:
        events = take_completion(value, Answer(question(), estimate), part="delta")
    except BackendError as error:
        events = [Delta(error.detail)]
    assert all(isinstance(event, Delta) for event in events)
