"""What is asked beyond plain chat, and who would leave it out."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from kowalski.node.backends.features import HONOURED, left_out, wanted
from kowalski.node.backends.seam import ModelInfo
from kowalski.protocol.messages.inference import ChatMessage, Sampling, Tool, ToolCall
from tests.node.backends.asking import question

ANY = ModelInfo("m")
TOOLS = (Tool(name="look"),)
WITH_IMAGE = (ChatMessage(role="user", content="what is it?", images=(0,)),)
WITH_RESULT = (ChatMessage(role="tool", content="17", tool_call="a"),)
WITH_CALL = (ChatMessage(role="assistant", content="", tool_calls=(ToolCall(name="look"),)),)

ASKED: list[tuple[dict[str, Any], set[str]]] = [
    ({}, set()),
    ({"sampling": Sampling(stop=("x",))}, set()),
    ({"sampling": Sampling(seed=0)}, {"seed"}),
    ({"sampling": Sampling(top_p=0.5, top_k=3, min_p=0.0)}, {"top_p", "top_k", "min_p"}),
    ({"sampling": Sampling(presence_penalty=0.0)}, {"penalties"}),
    ({"sampling": Sampling(frequency_penalty=1.0)}, {"penalties"}),
    ({"sampling": Sampling(repeat_penalty=1.1)}, {"repeat_penalty"}),
    ({"tools": TOOLS}, {"tools"}),
    ({"tools": TOOLS, "tool_choice": "auto"}, {"tools"}),
    ({"tools": TOOLS, "tool_choice": "required"}, {"tools", "tool_choice"}),
    ({"tools": TOOLS, "tool_named": "look"}, {"tools", "tool_choice"}),
    ({"tools": TOOLS, "calls_in_parallel": False}, {"tools"}),
    ({"messages": WITH_RESULT}, {"tools"}),
    ({"messages": WITH_CALL}, {"tools"}),
    ({"messages": WITH_IMAGE}, {"images"}),
    ({"json_schema": "{}"}, {"json_schema"}),
    ({"logprobs": 0}, {"logprobs"}),
    ({"thinking": "off"}, {"thinking"}),
    ({"so_far": "The"}, {"so_far"}),
    ({"prompt": "Once", "so_far": " upon"}, {"prompt"}),
]


@pytest.mark.parametrize(("fields", "features"), ASKED)
def test_each_field_asks_for_its_feature(fields: dict[str, Any], features: set[str]) -> None:
    asked = question()
    for name, value in fields.items():
        asked = _with(asked, name, value)
    assert wanted(asked) == features


def _with(asked: Any, name: str, value: object) -> Any:  # noqa: ANN401 a field of the request
    return dataclasses.replace(asked, **{name: value})


@pytest.mark.parametrize(
    ("kind", "fields", "missing"),
    [
        ("openai", {"thinking": "on"}, ("thinking",)),
        ("sglang", {"sampling": Sampling(seed=7)}, ("seed",)),
        ("vllm", {"sampling": Sampling(seed=7)}, ()),
        ("openai", {"sampling": Sampling(top_k=3)}, ("top_k",)),
        ("openai", {"so_far": "The"}, ("so_far",)),
        ("exo", {"json_schema": "{}"}, ("json_schema",)),
        ("exo", {"tools": TOOLS, "tool_choice": "required"}, ("tool_choice",)),
        ("exo", {"prompt": "Once"}, ("prompt",)),
        ("exo", {"tools": TOOLS, "thinking": "low", "logprobs": 1}, ()),
        ("ollama", {"tools": TOOLS, "tool_named": "look"}, ("tool_choice",)),
        ("lm-studio", {"logprobs": 1}, ("logprobs",)),
        ("llama-server", {"json_schema": "{}", "thinking": "off", "so_far": "a"}, ()),
        ("vllm", {"prompt": "Once", "logprobs": 1}, ("logprobs of a prompt",)),
        ("a newer kind", {"sampling": Sampling(seed=1, min_p=0.1)}, ("min_p",)),
    ],
)
def test_what_a_kind_of_server_does_not_honour_is_named(
    kind: str, fields: dict[str, Any], missing: tuple[str, ...]
) -> None:
    assert left_out(kind, question(**fields), ANY) == missing


def test_a_model_without_a_capability_makes_its_feature_missing() -> None:
    plain = ModelInfo("m", capabilities=("chat",))
    able = ModelInfo("m", capabilities=("chat", "tools", "vision", "thinking"))
    asked = _with(question(tools=TOOLS), "messages", WITH_IMAGE)
    assert left_out("llama-server", asked, plain) == ("images", "tools")
    assert left_out("llama-server", asked, able) == ()
    assert left_out("llama-server", question(thinking="high"), plain) == ("thinking",)
    assert left_out("llama-server", question(thinking="high"), able) == ()


def test_a_model_that_cannot_think_need_not_be_told_to_leave_it() -> None:
    plain = ModelInfo("m", capabilities=("chat",))
    assert left_out("llama-server", question(thinking="off"), plain) == ()
    assert left_out("openai", question(thinking="off"), plain) == ()


@pytest.mark.parametrize("kind", HONOURED)
def test_plain_chat_leaves_nothing_out_anywhere(kind: str) -> None:
    asked = question(max_tokens=1, temperature=0.0, stop=("x",))
    assert left_out(kind, asked, ModelInfo("m", capabilities=("chat",))) == ()
