"""OpenAI's bodies and chunks: tools, images, schemas, thoughts, logprobs, raw prompts."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from kowalski.node.backends.answers import Answer
from kowalski.node.backends.openai_words import (
    ChunkReader,
    WholeReader,
    chat_body,
    data_url,
    prompt_body,
)
from kowalski.node.backends.seam import (
    BackendError,
    CallPiece,
    Completed,
    CompletionRequest,
    Delta,
)
from kowalski.protocol.messages.inference import (
    ChatMessage,
    Logprob,
    Sampling,
    TokenLogprob,
    Tool,
    ToolCall,
)
from tests.node.backends.asking import estimate, question

PNG = b"\x89PNG rest"
TOOLS = (Tool(name="look", description="Looks.", parameters='{"type":"object"}'), Tool(name="go"))


def test_every_way_to_sample_has_its_name() -> None:
    sampling = Sampling(
        seed=7,
        stop=("a", "b"),
        top_p=0.5,
        top_k=3,
        min_p=0.0,
        presence_penalty=-1.0,
        frequency_penalty=0.0,
        repeat_penalty=1.5,
    )
    body = chat_body(question(sampling=sampling))
    told = {name: body[name] for name in body if name not in ("model", "messages")}
    assert told == {
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": 7,
        "stop": ["a", "b"],
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.0,
        "presence_penalty": -1.0,
        "frequency_penalty": 0.0,
        "repeat_penalty": 1.5,
    }


@pytest.mark.parametrize("kind", ["vllm", "sglang", "exo"])
def test_some_call_the_penalty_of_repeating_otherwise(kind: str) -> None:
    body = chat_body(question(sampling=Sampling(repeat_penalty=1.5)), kind)
    assert body["repetition_penalty"] == 1.5
    assert "repeat_penalty" not in body


def test_tools_are_functions_with_a_schema_or_without() -> None:
    body = chat_body(question(tools=TOOLS, tool_choice="required", calls_in_parallel=False))
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "look",
                "description": "Looks.",
                "parameters": {"type": "object"},
            },
        },
        {"type": "function", "function": {"name": "go"}},
    ]
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    named = chat_body(question(tools=TOOLS, tool_named="go", tool_choice="auto"))
    assert named["tool_choice"] == {"type": "function", "function": {"name": "go"}}


def test_calls_and_their_results_go_back_as_they_came() -> None:
    call = ToolCall(id="x", name="look", arguments='{"at":1}')
    messages = (
        ChatMessage(role="assistant", content="", tool_calls=(call, ToolCall(name="go"))),
        ChatMessage(role="tool", content="nothing", tool_call="x"),
    )
    asked = dataclasses.replace(question(), messages=messages)
    assert chat_body(asked)["messages"] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "x",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"at":1}'},
                },
                {"id": "call_1", "type": "function", "function": {"name": "go", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "content": "nothing", "tool_call_id": "x"},
    ]


def test_images_stand_behind_the_words_as_data() -> None:
    messages = (
        ChatMessage(role="user", content="what?", images=(1, 0)),
        ChatMessage(role="user", content="", images=(0,)),
    )
    asked = dataclasses.replace(question(), messages=messages, images=(PNG, b"\xff\xd8 jpg"))
    first, second = chat_body(asked)["messages"]  # type: ignore[misc] a list of two
    assert [part["type"] for part in first["content"]] == ["text", "image_url", "image_url"]
    assert first["content"][1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert second["content"] == [{"type": "image_url", "image_url": {"url": data_url(PNG)}}]


def test_a_schema_binds_the_answer_and_an_empty_one_asks_for_any_object() -> None:
    body = chat_body(question(json_schema='{"type":"integer"}'))
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": {"type": "integer"}},
    }
    assert chat_body(question(json_schema="{}"))["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    "fields",
    [
        {"json_schema": "{"},
        {"json_schema": "[]"},
        {"tools": (Tool(name="x", parameters="3"),)},
        {"json_schema": "[" * 100_000},
    ],
)
def test_what_is_no_json_object_is_the_askers_fault(fields: dict[str, Any]) -> None:
    with pytest.raises(BackendError) as caught:
        chat_body(question(**fields))
    assert caught.value.code == "rejected"


@pytest.mark.parametrize(
    ("thinking", "kind", "told"),
    [
        ("off", "vllm", {"chat_template_kwargs": {"enable_thinking": False}}),
        (
            "low",
            "llama-server",
            {"chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "low"}},
        ),
        ("on", "exo", {"enable_thinking": True}),
        ("high", "exo", {"enable_thinking": True, "reasoning_effort": "high"}),
    ],
)
def test_thinking_is_told_as_each_kind_hears_it(
    thinking: Any,  # noqa: ANN401 one of the words
    kind: str,
    told: dict[str, object],
) -> None:
    body = chat_body(question(thinking=thinking), kind)
    assert {name: body[name] for name in told} == told


def test_an_answer_is_gone_on_with_from_its_last_message() -> None:
    body = chat_body(question("hello", so_far="Good "))
    assert body["messages"] == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Good "},
    ]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_a_raw_prompt_goes_on_where_it_ends() -> None:
    asked = CompletionRequest("m", prompt="Once upon", so_far=" a time", max_tokens=3)
    body = prompt_body(asked)
    assert (body["prompt"], body["max_tokens"]) == ("Once upon a time", 3)
    assert "messages" not in body


# --- what comes ---------------------------------------------------------------------------------


def read(asked: CompletionRequest, *payloads: object) -> tuple[list[object], Completed]:
    answer = Answer(asked, estimate)
    reader = ChunkReader(answer)
    texts = [json.dumps(payload) for payload in payloads] + ["[DONE]"]
    events, _ = reader.feed("".join(f"data: {text}\n\n" for text in texts).encode())
    events += answer.rest()
    return list(events), answer.completed()


def chunk(reason: str | None = None, **delta: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def called(index: int | None, **function: object) -> dict[str, object]:
    return {"index": index, "id": f"c{index}", "type": "function", "function": function}


def test_calls_come_in_pieces() -> None:
    events, end = read(
        question(tools=TOOLS),
        chunk(content="I look."),
        chunk(tool_calls=[called(0, name="look", arguments="")]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"at":'}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
        chunk("tool_calls"),
    )
    assert events == [
        Delta("I look."),
        Delta(calls=(CallPiece(0, "c0", "look"),)),
        Delta(calls=(CallPiece(0, arguments='{"at":'),)),
        Delta(calls=(CallPiece(0, arguments="1}"),)),
    ]
    assert end.finish_reason == "tool_calls"


def test_a_call_whose_arguments_are_an_object_and_that_has_no_number_is_understood() -> None:
    entry = {"function": {"name": "look", "arguments": {"at": 1}}}
    events, _ = read(question(tools=TOOLS), chunk("stop", tool_calls=[entry]))
    assert events == [Delta(calls=(CallPiece(0, "", "look", '{"at": 1}'),))]


def test_one_call_at_a_time_is_seen_to_where_the_server_does_not() -> None:
    calls = [called(0, name="look", arguments="{}"), called(1, name="go", arguments="{}")]
    asked = question(tools=TOOLS, calls_in_parallel=False)
    events, _ = read(asked, chunk("tool_calls", tool_calls=calls))
    assert events == [Delta(calls=(CallPiece(0, "c0", "look", "{}"),))]


def test_a_text_to_stop_at_ends_the_answer_where_the_server_does_not() -> None:
    asked = question(stop=("\n\n",))
    events, end = read(asked, chunk(content="a\n"), chunk(content="\nb"), chunk("length"))
    assert events == [Delta("a")]
    assert end.finish_reason == "stop"


def test_thoughts_come_apart_under_either_name() -> None:
    events, end = read(
        question(), chunk(reasoning_content="hm"), chunk(reasoning="so"), chunk("stop", content="x")
    )
    assert events == [Delta(thinking="hm"), Delta(thinking="so"), Delta("x")]
    assert end.thinking_tokens > 0


def test_the_server_counts_its_thoughts_and_what_it_knew_already() -> None:
    usage = {
        "prompt_tokens": 50,
        "completion_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 40},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    _, end = read(question(), chunk("stop", content="x", reasoning="y"), {"usage": usage})
    assert end == Completed("stop", 50, 9, False, cached_tokens=40, thinking_tokens=4)


def test_the_timings_of_llama_server_count_and_measure() -> None:
    timings = {
        "cache_n": 48,
        "prompt_n": 11,
        "prompt_ms": 1200.0,
        "predicted_n": 3,
        "predicted_ms": 500,
    }
    _, end = read(question(), {**chunk("stop", content="x"), "timings": timings})
    assert end == Completed("stop", 59, 3, False, cached_tokens=48, prompt_s=1.2, generation_s=0.5)


def test_logprobs_are_told_with_their_alternatives() -> None:
    told = {
        "content": [
            {
                "token": "h",
                "logprob": -2.5,
                "bytes": [104],
                "top_logprobs": [
                    {"token": "\ufffd", "logprob": -9999.0, "bytes": [240, 159]},
                    {"token": "x", "logprob": float("-inf"), "bytes": None},
                ],
            }
        ]
    }
    payload = chunk("stop", content="h")
    payload["choices"][0]["logprobs"] = told
    events, _ = read(question(logprobs=2), payload)
    half = TokenLogprob(token="\ufffd", logprob=-9999.0, utf8=b"\xf0\x9f")
    never = TokenLogprob(token="x", logprob=-10_000.0)
    logprob = Logprob(token="h", logprob=-2.5, alternatives=(half, never))
    assert events == [Delta("h", logprobs=(logprob,))]


def test_logprobs_that_were_asked_for_and_do_not_come_are_a_bad_reply() -> None:
    with pytest.raises(BackendError, match="no logprobs"):
        read(question(logprobs=0), chunk("stop", content="x"))


@pytest.mark.parametrize("text", ["no JSON", "", '{"a":'])
def test_an_answer_that_was_to_be_json_and_is_not_is_a_bad_reply(text: str) -> None:
    with pytest.raises(BackendError, match="no JSON, though asked"):
        read(question(json_schema="{}"), chunk("stop", content=text))


def test_json_that_was_cut_short_or_thought_about_is_what_it_is() -> None:
    _, end = read(question(json_schema="{}"), chunk("length", content='{"a":'))
    assert end.finish_reason == "length"
    text = "<think>{</think>\n17"
    assert read(question(json_schema="{}"), chunk("stop", content=text))[0] == [Delta(text)]


def test_an_answer_that_goes_on_is_given_without_its_beginning() -> None:
    asked = question(so_far="Good mor")
    events, _ = read(asked, chunk(content="Good "), chunk(content="morning"), chunk("stop"))
    assert events == [Delta("ning")]
    events, _ = read(asked, chunk(content="ning"), chunk("stop"))
    assert events == [Delta("ning")]


def test_a_raw_prompt_is_answered_in_text() -> None:
    asked = CompletionRequest("m", prompt="Once")
    events, end = read(
        asked,
        {"choices": [{"text": " upon", "index": 0, "finish_reason": None}]},
        {"choices": [{"text": "", "index": 0, "finish_reason": "length"}]},
    )
    assert (events, end.finish_reason) == ([Delta(" upon")], "length")


def test_a_whole_answer_has_its_calls_in_the_message() -> None:
    answer = Answer(question(tools=TOOLS), estimate)
    reader = WholeReader(answer)
    message = {"content": None, "tool_calls": [{"id": "x", "function": {"name": "go"}}]}
    reader.feed(
        json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).encode()
    )
    assert reader.finish() == [Delta(calls=(CallPiece(0, "x", "go"),))]


@pytest.mark.parametrize(
    "payload", [chunk(tool_calls=3), chunk(content=3), chunk(reasoning_content=[1])]
)
def test_pieces_of_another_shape_are_a_bad_reply(payload: object) -> None:
    with pytest.raises(BackendError) as caught:
        read(question(), payload)
    assert caught.value.code == "bad_reply"
