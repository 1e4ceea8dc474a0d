"""The dialects of `/tokenize`, and what is no count."""

from __future__ import annotations

import pytest

from kowalski.node.backends.lines import JsonObject
from kowalski.node.backends.seam import BackendError
from kowalski.node.backends.token_counting import body, counted


def test_llama_server_is_asked_for_the_content_and_others_for_a_prompt_of_a_model() -> None:
    of_llama = body("llama-server", "m", "a text")
    assert (of_llama["content"], of_llama["add_special"]) == ("a text", False)
    for kind in ("vllm", "sglang"):
        told = body(kind, "m", "a text")
        assert (told["model"], told["prompt"], told["add_special_tokens"]) == ("m", "a text", False)


def test_a_count_or_a_list_of_tokens_is_read() -> None:
    assert counted({"tokens": [1, 22, 333]}) == 3
    assert counted({"count": 5, "max_model_len": 4096, "tokens": [1, 2, 3, 4, 5]}) == 5
    assert counted({"tokens": []}) == 0


@pytest.mark.parametrize("value", [{}, {"tokens": 3}, {"count": True}, {"count": -1}, {"error": 1}])
def test_anything_else_is_no_count(value: JsonObject) -> None:
    with pytest.raises(BackendError, match="no count of tokens"):
        counted(value)
