"""What OpenAI's clients ask of `/v1/responses`, as the mesh takes it."""

import base64

import pytest

from kowalski.node.http.exchange import HttpError
from kowalski.node.http.faces.responses_requests import response_asked

Body = dict[str, object]


def refusal(**body: object) -> HttpError:
    with pytest.raises(HttpError) as no:
        response_asked({"model": "m", "input": "hello", **body}, remaining_s=60)
    assert no.value.status == 400
    return no.value


def test_a_text_is_what_the_user_says() -> None:
    asked, echo = response_asked({"model": "m", "input": "hello"}, remaining_s=60)
    told = [(one.role, one.content) for one in asked.completion.messages]
    assert (told, asked.wants_stream) == ([("user", "hello")], False)
    assert (echo.fields["tool_choice"], echo.fields["store"]) == ("auto", False)


def test_everything_that_is_set_is_passed_on_and_told_again() -> None:
    body: Body = {
        "model": "auto",
        "instructions": "be brief",
        "input": "hello",
        "max_output_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "parallel_tool_calls": False,
        "tools": [{"type": "function", "name": "look", "parameters": {"type": "object"}}],
        "tool_choice": {"type": "function", "name": "look"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}}},
        "reasoning": {"effort": "low"},
        "stream": True,
        "store": True,
        "nobody_knows": 1,
    }
    asked, echo = response_asked(body, remaining_s=60)
    wanted = asked.completion
    assert asked.wants_stream
    assert (wanted.model, wanted.max_tokens, wanted.temperature) == ("*", 9, 0.5)
    assert [one.role for one in wanted.messages] == ["system", "user"]
    assert (wanted.sampling.top_p, wanted.calls_in_parallel) == (0.9, False)
    assert ([one.name for one in wanted.tools], wanted.tool_named) == (["look"], "look")
    assert (wanted.json_schema, wanted.thinking) == ('{"a":1}', "low")
    assert echo.fields["instructions"] == "be brief"
    assert echo.fields["tools"] == body["tools"]
    assert "nobody_knows" not in echo.fields


def test_a_conversation_with_a_picture_thoughts_and_calls() -> None:
    image = "data:image/png;base64," + base64.b64encode(b"p").decode()
    items: list[Body] = [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": image},
            ],
        },
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I"}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "seen"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "too"}],
        },
        {"type": "function_call", "call_id": "c3", "name": "look", "arguments": "{}"},
        {"role": "developer", "content": "go on"},
    ]
    asked, _ = response_asked({"model": "m", "input": items}, remaining_s=60)
    messages = asked.completion.messages
    roles = ["user", "assistant", "tool", "tool", "assistant", "system"]
    assert [one.role for one in messages] == roles
    assert (messages[0].content, messages[0].images) == ("look", (0,))
    assert [one.id for one in messages[1].tool_calls] == ["c1", "c2"]
    assert [(one.tool_call, one.content) for one in messages[2:4]] == [
        ("c1", "seen"),
        ("c2", "too"),
    ]
    assert [one.id for one in messages[4].tool_calls] == ["c3"]
    assert [one.data for one in asked.pictures] == [b"p"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"conversation": "c"}, "conversation"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input"),
        ({"text": {"format": {"type": "json_schema"}}}, "text"),
        ({"reasoning": {"effort": "immense"}}, "reasoning"),
        (
            {"input": [{"type": "function_call_output", "output": [{"type": "input_image"}]}]},
            "input",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(body: Body, field: str) -> None:
    no = refusal(**body)
    assert no.field == field
    assert field in no.message


def test_nothing_to_answer_is_the_clients_mistake() -> None:
    assert "input" in refusal(input=[]).message
    assert "input" in refusal(input=None).message


def test_a_format_may_be_any_object() -> None:
    body = {"model": "m", "input": "x", "text": {"format": {"type": "json_object"}}}
    assert response_asked(body, remaining_s=60)[0].completion.json_schema == "{}"
    body = {"model": "m", "input": "x", "text": {"format": {"type": "text"}}}
    assert response_asked(body, remaining_s=60)[0].completion.json_schema is None
