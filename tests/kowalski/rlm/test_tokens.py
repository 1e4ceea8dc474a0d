from __future__ import annotations

import inspect
import json
import string
import textwrap
import time
import typing
from pydoc_data.topics import topics

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kowalski.rlm.tokens import centitokens, estimate_tokens

EDGES = st.one_of(
    st.text(alphabet="aB1_ .\n\t\u00e9\u4e2d\U0001f600", max_size=8), st.text(max_size=20)
)


def test_nothing_is_no_tokens() -> None:
    assert estimate_tokens("") == 0


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # Counted once with the o200k, Llama 3, Qwen 3, Mistral v3 and Gemma 3 vocabularies (mean).
        ("hello world", 2),
        ("The quick brown fox jumps over the lazy dog.", 10),
        ("def add(a: int, b: int) -> int:\n    return a + b\n", 20),
        ("2024-05-01 12:34:56 ERROR disk full", 22),
        ("\u6211\u4eec\u660e\u5929\u53bb\u5317\u4eac\u3002", 6),
    ],
)
def test_short_texts_are_near_what_tokenizers_count(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == pytest.approx(tokens, abs=max(2, tokens * 0.25))


@settings(max_examples=300)
@example("x\n", "  y")
@example("_", " B\u4e2dB\u4e2d")
@given(EDGES, EDGES)
def test_joining_two_texts_never_costs_more_and_hardly_less_than_either(a: str, b: str) -> None:
    assert centitokens(a + b) <= centitokens(a) + centitokens(b)
    assert max(estimate_tokens(a), estimate_tokens(b)) - 1 <= estimate_tokens(a + b)
    assert estimate_tokens(a + b) <= estimate_tokens(a) + estimate_tokens(b)


@given(st.text())
def test_a_text_of_anything_costs_something(text: str) -> None:
    assert (estimate_tokens(text) > 0) == (text != "")


def test_every_script_costs_less_than_its_bytes() -> None:
    for text in ("\u043f\u0440\u0438\u0432\u0435\u0442", "\u3053\u3093", "\U0001f600", "\ud800"):
        assert 0 < estimate_tokens(text) <= len(text.encode("utf-8", "surrogatepass"))


def test_four_hundred_kilobytes_take_less_than_a_tenth_of_a_second() -> None:
    text = ("\n".join(topics.values()) * 2)[:400_000]
    begin = time.process_time()
    tokens = estimate_tokens(text)
    assert time.process_time() - begin < 0.1
    assert 70_000 < tokens < 130_000


def test_code_and_data_cost_more_a_character_than_prose() -> None:
    prose = topics["booleans"] + topics["exceptions"]
    code = inspect.getsource(textwrap) + inspect.getsource(typing)
    data = json.dumps([{"id": n, "name": string.ascii_letters[n % 50 :]} for n in range(500)])

    def rate(text: str) -> float:
        return estimate_tokens(text) / len(text)

    assert 0.18 < rate(prose) < rate(code) < 0.35
    assert rate(prose) < rate(data)
